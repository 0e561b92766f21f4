"""DynamoDB for the tests: moto's HTTP server in a process of its own.

    with start_dynamodb() as server:
        open_store(server.make_table(), Bounds())

`SERVICE_MONITOR_TEST_DYNAMODB=dynamodb://...` makes the tests use that one instead,
another emulator or AWS itself; each has a prefix of its own in that table, which is
made if it is not there. What strikes, meters or reads the log needs ours, and skips.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from integration.faults.proxy import Proxy
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import Place, parse_place
from service_monitor.stores.dynamodb.table import init_table

ELSEWHERE = "SERVICE_MONITOR_TEST_DYNAMODB"
REGION = "eu-central-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
START = 90.0  # seconds

Answer = tuple[int, Any]


@dataclass(frozen=True)
class DynamoDB:
    """A running server; `control` is the way to its additions."""

    port: int
    host: str = "127.0.0.1"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def url(self, table: str) -> str:
        return f"dynamodb://{table}?region={REGION}&endpoint={self.endpoint}"

    def make_table(self) -> str:
        """Make a table as `init-store` does; give its URL."""
        url = self.url(f"t-{uuid.uuid4().hex[:12]}")
        init_table(url, Bounds())
        return url

    def control(self, what: str, **settings: Any) -> Any:
        """Say or ask something: faults, clock, log, usage."""
        request = Request(
            f"{self.endpoint}/_test/{what}", json.dumps(settings).encode()
        )
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def proxied(self) -> Proxy:
        """Give a proxy in front of it, to damage connections."""
        return Proxy(self.host, self.port)

    @contextmanager
    def fault(self, kind: str, **settings: Any) -> Iterator[None]:
        """Let a share of the requests fail so while the block runs."""
        self.control("faults", kind=kind, **settings)
        try:
            yield
        finally:
            self.control("faults")


def elsewhere() -> str | None:
    """Give the URL of an empty store where the environment says, if it does."""
    named = os.environ.get(ELSEWHERE)
    if not named:
        return None
    init_table(named, Bounds())
    place = parse_place(named)
    return url_of(replace(place, prefix=f"{place.prefix}/t-{uuid.uuid4().hex[:12]}"))


def url_of(place: Place) -> str:
    """Write a place as `parse_place` reads it."""
    named = asdict(place)
    where = f"dynamodb://{named.pop('table')}{named.pop('prefix')}"
    return f"{where}?{urlencode({k: v for k, v in named.items() if v})}"


@contextmanager
def start_dynamodb(host: str = "127.0.0.1", lead: float = 0.0) -> Iterator[DynamoDB]:
    """Run a server that ends with the block, or with this process.

    Its clock has a `lead` of so many seconds on this machine's.
    """
    os.environ.update({k: v for k, v in CREDENTIALS.items() if k not in os.environ})
    with subprocess.Popen(
        [sys.executable, "-m", "integration.support.dynamodb_server", host, str(lead)],
        stdin=subprocess.PIPE,  # its end tells the server to end
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("moto's server does not start")
            yield DynamoDB(int(line), host)
        finally:
            process.stdin.close()
            process.wait(START)


def refusal(kind: str, message: str) -> Answer:
    return 400, {
        "__type": f"com.amazonaws.dynamodb.v20120810#{kind}",
        "message": message,
    }


def cancelled(operation: str, reason: str) -> Answer:
    status, body = refusal("TransactionCanceledException", f"cancelled [{reason}]")
    body["CancellationReasons"] = [{"Code": reason}, {"Code": "None"}]
    return status, body


# What becomes of a request; None: it is carried out, and its answer is lost or late.
FAULTS: Mapping[str, Callable[[str], Answer | None]] = {
    "throttle": lambda operation: (
        cancelled(operation, "ThrottlingError")
        if operation == "TransactWriteItems"
        else refusal("ProvisionedThroughputExceededException", "slow down")
    ),
    "limit": lambda _: refusal("RequestLimitExceeded", "slow down"),
    "conflict": lambda operation: (
        cancelled(operation, "TransactionConflict")
        if operation == "TransactWriteItems"
        else refusal("TransactionConflictException", "in progress")
    ),
    "broken": lambda _: (500, {"__type": "InternalServerError", "message": "oh"}),
    "lost": lambda _: None,
    "slow": lambda _: None,
}


def size_of(item: dict[str, Any] | None) -> int:
    """Give an item's size as DynamoDB counts it: names, text, and digits by twos."""
    size = 0
    for name, typed in (item or {}).items():
        ((kind, value),) = typed.items()
        size += len(name) + (
            len(value) // 2 + 2 if kind == "N" else len(value.encode())
        )
    return size

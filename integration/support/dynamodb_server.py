"""DynamoDB as a server: moto's, made honest.

What is added to moto: one request at a time, since its transactions put the whole table
back when they fail and so undo what others wrote meanwhile (and only the items touched
are put back here, since copying the table is most of what they cost); a signature whose
time is more than 5 minutes off is refused, as by AWS; faults on demand; and the ordered
log of all changes, which is the truth for the history checker.
"""

from __future__ import annotations

import calendar
import copy
import io
import itertools
import json
import math
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from integration.support.dynamodb import FAULTS, REGION, Answer, refusal, size_of
from service_monitor.timing import now

SKEW = 300  # seconds; what AWS accepts
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}


SLOW = 2.0  # seconds


class Server:
    """A WSGI application around moto's."""

    def __init__(self, lead: float) -> None:
        from moto.backends import get_backend
        from moto.core.serialize import JSONSerializer
        from moto.dynamodb.models.table import Table
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            create_backend_app,
        )

        # The copy before each transaction.
        Table.__deepcopy__ = lambda table, _: table  # type: ignore[attr-defined]
        _hurry(JSONSerializer)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._tables = get_backend("dynamodb")["123456789012"][REGION].tables
        self._lock = threading.Lock()
        self._fault: dict[str, Any] = {}
        self._turns: Iterator[bool] | None = None
        self._lead = lead
        self._log: list[dict[str, Any]] = []
        self._requests: Counter[str] = Counter()
        self._units = {"read": 0, "write": 0}
        self._chance = random.Random(1)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"].startswith("/_test/"):
            answer = getattr(self, environ["PATH_INFO"][7:])(**json.loads(body))
            return self._give(start_response, 200, answer)
        operation = environ.get("HTTP_X_AMZ_TARGET", ".").rpartition(".")[2]
        said = json.loads(body or b"{}")
        struck = self._fault["kind"] if self._struck(operation) else None
        refused = self._skewed(environ) or (struck and FAULTS[struck](operation))
        if refused:
            return self._give(start_response, *refused)
        environ["wsgi.input"] = io.BytesIO(body)
        if struck == "slow":
            time.sleep(SLOW)
        with self._lock:
            if _hung_up(environ["werkzeug.socket"]):
                # Else a server that is behind would never catch up.
                raise ConnectionResetError
            self._requests[operation] += 1
            status, text = self._run(environ, operation, said)
        if struck == "lost":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return self._give(start_response, status, text)

    # what tests may ask for

    def faults(
        self,
        kind: str | None = None,
        share: float = 1.0,
        only: str = "",
        every: int = 0,
    ) -> None:
        """Strike a share of the requests at random, or exactly every second or so."""
        self._fault = {"kind": kind, "share": share, "only": only} if kind else {}
        self._turns = itertools.cycle([*[False] * (every - 1), True]) if every else None

    def log(self, since: int) -> list[dict[str, Any]]:
        with self._lock:
            return self._log[since:]

    def usage(self) -> dict[str, Any]:
        with self._lock:
            return {"requests": dict(self._requests), **self._units}

    def time(self) -> float:
        return time.time() + self._lead

    def _struck(self, operation: str) -> bool:
        fault = self._fault
        return bool(
            fault
            and operation not in ("CreateTable", "DescribeTable")
            and fault["only"] in operation
            and (
                next(self._turns)
                if self._turns
                else self._chance.random() < fault["share"]
            )
        )

    def _skewed(self, environ: Mapping[str, Any]) -> Answer | None:
        stamp = environ.get("HTTP_X_AMZ_DATE", "19700101T000000Z")
        signed = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
        if abs(signed - self.time()) > SKEW:
            late = signed < self.time()
            what = "Signature expired" if late else "Signature not yet current"
            return refusal("InvalidSignatureException", f"{what}: {stamp} is off")
        return None

    def _run(
        self, environ: dict[str, Any], operation: str, said: dict[str, Any]
    ) -> tuple[int, str]:
        addresses = list(_addresses(operation, said))
        begun, before = now(), [self._item(*address) for address in addresses]
        saved = [copy.deepcopy(self._found(*address)) for address in addresses]
        given: list[int] = []

        def start(status: str, *_: object) -> None:
            given.append(int(status.split()[0]))

        text = b"".join(self._moto(environ, start)).decode()
        if given[0] != 200:
            for address, found in zip(addresses, saved, strict=True):
                self._restore(*address, found)
        after = [self._item(*address) for address in addresses]
        self._count(operation, before, after, text)
        for (table, key), old, new in zip(addresses, before, after, strict=True):
            self._note(begun, table, key, old, new)
        return given[0], text

    def _found(self, table: str, key: Mapping[str, Any]) -> Any:
        from moto.dynamodb.models.dynamo_type import DynamoType

        with suppress(KeyError):  # another table's keys
            where = self._tables.get(table)
            typed = DynamoType(key["label"]), DynamoType(key["key"])
            return where and where.get_item(*typed)
        return None

    def _restore(self, table: str, key: Mapping[str, Any], found: Any) -> None:
        from moto.dynamodb.models.dynamo_type import DynamoType

        if found:
            self._tables[table].items[found.hash_key][found.range_key] = found
        elif self._found(table, key):
            typed = DynamoType(key["label"]), DynamoType(key["key"])
            self._tables[table].delete_item(*typed)

    def _item(self, table: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        found = self._found(table, key)
        return found.to_json()["Attributes"] if found else None

    def _note(
        self,
        begun: float,
        table: str,
        key: Mapping[str, Any],
        old: dict[str, Any] | None,
        new: dict[str, Any] | None,
    ) -> None:
        """Log a change of a record; a new record over a dead one is two."""
        if key["key"]["S"] == "counter" or old == new:
            return
        path = f"{key['label']['S']}/{key['key']['S']}"
        told = {"after": begun, "at": now(), "table": table, "path": path}
        if old and (new is None or old["created"] != new["created"]):
            dead = self._end(old) <= self.time()
            gone = {"value": None, "expired": dead, "extended": False}
            self._log.append(told | self._numbers(old) | gone)
        if new:
            same = old is not None and old["version"] == new["version"]
            value = {"value": new["value"]["S"], "expired": None, "extended": same}
            self._log.append(told | self._numbers(new) | value)

    def _numbers(self, item: dict[str, Any]) -> dict[str, float]:
        """Give a record's numbers; its end on the clock that `now` reads."""
        ends = now() + self._end(item) - self.time()
        numbers = {name: int(item[name]["N"]) for name in ("created", "version")}
        return numbers | {"ends": ends}

    def _end(self, item: dict[str, Any]) -> float:
        """Return when it is dead by the store's time; a durable one never is."""
        return float(item["dead_after"]["N"]) if "dead_after" in item else math.inf

    def _count(
        self, operation: str, before: list[Any], after: list[Any], text: str
    ) -> None:
        """Add up capacity by the documented rules: 1 KB to write, 4 KB to read."""
        if operation in WRITES:
            twice = 2 if operation == "TransactWriteItems" else 1
            for old, new in itertools.zip_longest(before, after):
                size = max(size_of(old), size_of(new), 1)
                self._units["write"] += twice * -(-size // 1024)
        elif operation in ("GetItem", "Query", "Scan"):
            answer = json.loads(text)
            items = answer.get("Items", [answer.get("Item")])
            size = max(sum(map(size_of, items)), 1)
            self._units["read"] += -(-size // 4096)

    def _give(
        self, start_response: Callable[..., Any], status: int, answer: Any
    ) -> Iterable[bytes]:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        start_response(f"{status} -", [("Content-Type", "application/x-amz-json-1.0")])
        return [text.encode()]


def _hung_up(client: socket.socket) -> bool:
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _hurry(serializer: Any) -> None:
    """Let moto give an attribute as it is, not after trying all types it might have.

    That takes 3 ms an item, so that 20 nodes were more than one server can bear.
    """
    original = serializer._serialize_type_structure

    def serialize(
        self: Any, serialized: dict[str, Any], value: Any, shape: Any, key: str
    ) -> None:
        if shape.name == "AttributeValue" and key:
            serialized[key] = value if isinstance(value, dict) else value.to_json()
        else:
            original(self, serialized, value, shape, key)

    serializer._serialize_type_structure = serialize


def _addresses(
    operation: str, said: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if operation == "TransactWriteItems":
        for one in said["TransactItems"]:
            (write,) = one.values()
            yield write["TableName"], write.get("Key") or write["Item"]
    elif operation in WRITES:
        yield said["TableName"], said.get("Key") or said["Item"]


def serve(host: str, lead: float) -> None:
    """Serve until stdin ends."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(int(application.time()), usegmt=True)

        def log(self, *_: Any) -> None:
            pass

    with suppress(PermissionError):  # all wait for this one: let it not be the slowest
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    application = Server(lead)
    server = make_server(host, 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))

"""The fault matrix: the service misbehaves."""

from __future__ import annotations

import gzip
import itertools
import random
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from integration.faults.processes import HANG, Command, Commands, wait_for
from integration.matrix.scenes import BAD, GOOD, listed, node, states, stopped
from integration.support.certificates import Certificates
from integration.support.loopback import (
    Serve,
    Talk,
    answering,
    dripping,
    hanging,
    read_request,
    status,
)
from service_monitor.net.calls import Bounds
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.lease import Request
from service_monitor.stores.opening import open_store

pytestmark = pytest.mark.timeout(120, func_only=True)


class Service:
    """A service that is "503" until it is told to behave otherwise."""

    def __init__(self, serve: Serve, scheme: str) -> None:
        self._talk = BAD
        self._asked = 0
        self.url = f"{scheme}://127.0.0.1:{serve(self).port}/"

    def __call__(self, connection: socket.socket) -> None:
        self._asked += 1
        self._talk(connection)

    def become(self, talk: Talk) -> None:
        self._talk, self._asked = talk, 0

    def wait_asked(self, times: int) -> None:
        wait_for(f"{times} probes of {self.url}", lambda: self._asked >= times)


def endless(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def flapping() -> Talk:
    talks = itertools.cycle((GOOD, BAD))
    return lambda connection: next(talks)(connection)


def secured(certificates: Certificates) -> Talk:
    context = certificates.server_context()

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as over_tls:
            GOOD(over_tls)

    return talk


HUGE = b"HTTP/1.1 200 OK\r\n" + (b"X-A: " + b"y" * 60_000 + b"\r\n") * 200
MANNERS = {
    "hangs": hanging,
    "drips-header": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
    "drips-body": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "never-ends": endless,
    "huge-headers": answering(HUGE + b"\r\n"),
    "flaps": flapping(),
}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return gzip.compress(b"\0" * (128 * 1024 * 1024))


def most_memory(command: Command) -> int:
    """Return the most MiB that it ever had in use."""
    text = Path(f"/proc/{command.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024


def test_a_service_that_misbehaves_keeps_the_lease(
    run: Commands,
    serve: Serve,
    certificates: Certificates,
    strangers: Certificates,
    bomb: bytes,
    chance: random.Random,
) -> None:
    """The next node would start beside one that is not up, or never start."""
    bad = {**MANNERS, "bad-tls": secured(strangers), "no-tls": GOOD}
    elsewhere = f"302 Found\r\nLocation: {serve(GOOD).url}"
    for name, line in ("bomb", "503 Not Yet"), ("redirects", elsewhere):
        bad[name] = answering(status(line, "Content-Encoding: gzip", body=bomb))
    services = {n: Service(serve, "https" if "tls" in n else "http") for n in bad}
    with closing(open_store(run.store, Bounds(), {})) as store:
        for name in services:
            request = Request(run.label, name, name, slots=len(services))
            acquire(store, request, HANG, Bounds())
    watches = {
        name: node(
            *(run, "watch", name, f"--monitor-url={service.url}", "--rise=2"),
            *("--fall=4", "--interval=1s", "--timeout=1s"),  # one answer may be late
            f"--ca={certificates.ca}",
        )
        for name, service in services.items()
    }
    for name, service in services.items():
        watches[name].wait_said("is down")
        service.wait_asked(2)
    idle = {name: most_memory(watch) for name, watch in watches.items()}
    time.sleep(chance.uniform(0, 0.3))
    for name, service in services.items():
        service.become(bad[name])
    for service in services.values():
        service.wait_asked(4)
    grown = {name: most_memory(watch) - idle[name] for name, watch in watches.items()}
    assert max(grown.values()) < 16, grown
    assert states(run) == dict.fromkeys(services, "held")
    assert listed(run) == ""
    for name, service in services.items():
        service.become(secured(certificates) if "tls" in name else GOOD)
    for watch in watches.values():
        watch.wait_said("startup lease released")
    assert states(run) == {}
    assert set(listed(run).split(",")) == services.keys()
    services["flaps"].become(flapping())
    services["flaps"].wait_asked(3)
    assert "flaps" in listed(run).split(",")
    assert [stopped(watch) for watch in watches.values()] == [0] * len(watches)
    assert states(run, "hosts") == {}

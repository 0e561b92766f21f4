"""One bound for a primitive, the same on every store, whatever its server does."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest

from integration.support.loopback import Serve, dripping, hanging
from integration.support.stores import open_url
from service_monitor.errors import Stopped, StoreUnavailable
from service_monitor.net.calls import IN_FLIGHT, STOP_GRACE, Bounds
from service_monitor.records import Record
from service_monitor.stores.base import Store
from service_monitor.timing import now

TIMEOUT = 0.6
LATE = 4.0
"""Seconds that a call may end late, on a machine that does much else: less than what
it would take by the default bound."""
RECORD = Record("es/lease/a", "v", 3, 4, 99)

PRIMITIVES: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("es/lease/a", "v", 30),
    "update": lambda store: store.update(RECORD, "w", 30),
    "rewrite": lambda store: store.update(RECORD, "w", None),
    "keep_alive": lambda store: store.keep_alive(RECORD, 30),
    "delete": lambda store: store.delete(RECORD),
    "list": lambda store: store.list("es/lease/"),
    "time_left": lambda store: store.time_left(RECORD),
}
SERVERS = {
    "hangs": hanging,
    "drips": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", b" "),
    "drips a header": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
}
URLS = {
    "etcd": "etcd://{0}/p",
    "etcd2": "etcd2://{0}/p",
    "dynamodb": "dynamodb://table?region=eu-west-1&endpoint=http://{0}",
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.setenv(name, "key")


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[str]:
    """Give the URL of a file that somebody else writes, and never ends to."""
    path = tmp_path / "s.db"
    store = open_url(f"sqlite://{path}")
    store.list("")
    store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    yield f"sqlite://{path}"
    other.close()


def ends_in_time(store: Store, primitive: str) -> None:
    begun = now()
    with pytest.raises(StoreUnavailable):
        PRIMITIVES[primitive](store)
    assert now() - begun < TIMEOUT + LATE
    store.close()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("store", URLS)
def test_a_primitive_ends_in_time(
    serve: Serve, store: str, primitive: str, server: str
) -> None:
    """A round of `watch` would last longer than its watchdog allows."""
    place = f"127.0.0.1:{serve(SERVERS[server]).port}"
    opened = open_url(URLS[store].format(place), Bounds(), {}, TIMEOUT)
    ends_in_time(opened, primitive)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_primitive_on_sqlite_ends_in_time(busy: str, primitive: str) -> None:
    """One that writes for ever would hold up all others, each in its own way."""
    ends_in_time(open_url(busy, Bounds(), {}, TIMEOUT), primitive)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_stop_ends_a_primitive_on_sqlite(busy: str, primitive: str) -> None:
    """A stop while somebody else writes would take more than 2 s, and undo nothing."""
    bounds = Bounds()
    store = open_url(busy, bounds, {})
    stopper = threading.Timer(0.2, bounds.stop.request, (15,))
    stopper.start()
    begun = now()
    with pytest.raises(Stopped):
        PRIMITIVES[primitive](store)
    assert now() - begun < 0.2 + IN_FLIGHT + LATE
    with pytest.raises(StoreUnavailable, match="locked"):  # undoing has its time
        PRIMITIVES[primitive](store)
    assert 0.1 + STOP_GRACE < now() - begun < 0.2 + STOP_GRACE + LATE
    stopper.join()
    store.close()


@pytest.mark.parametrize("scheme", ["etcd", "etcd2", "dynamodb"])
def test_the_address_of_this_machine_is_found_in_time(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A dead name server would cost a start each look for it twice over."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: sleep(9))
    timeout = 2.0  # boto3 needs half a second to say where its endpoint is
    store = open_url(URLS[scheme].format("name.test:1"), Bounds(), {}, timeout)
    begun = now()
    with pytest.raises(StoreUnavailable, match="name this host with --host"):
        store.local_address()
    assert now() - begun < timeout + LATE


@pytest.mark.parametrize("scheme", URLS)
def test_a_primitive_keeps_to_a_nearer_end(serve: Serve, scheme: str) -> None:
    """A command would outlast its own timeout by a call to the store."""
    bounds = Bounds()
    place = f"127.0.0.1:{serve(hanging).port}"
    store = open_url(URLS[scheme].format(place), bounds, {}, 60)
    begun = now()
    with bounds.within(TIMEOUT), pytest.raises(StoreUnavailable):
        store.list("es/lease/")
    assert now() - begun < TIMEOUT + LATE

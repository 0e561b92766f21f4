"""A wait on etcd's watch is a hint with a bound, whatever the watch does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service_monitor.errors import Stopped, StoreError
from service_monitor.net.calls import Bounds
from service_monitor.records import Snapshot
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.timing import now

Script = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def gateway() -> Iterator[Callable[..., Etcd3Store]]:
    """Give a store on a server of ours that plays a script for each watch."""
    servers: list[ThreadingHTTPServer] = []

    def serve(script: Script, bounds: Bounds | None = None) -> Etcd3Store:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                script(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        endpoint = Endpoint("http", "127.0.0.1", server.server_address[1])
        return Etcd3Store([endpoint], Access(), bounds or Bounds())

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def chunk(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def lines(*messages: Any, hold: float = 0.0) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        for message in messages:
            chunk(handler, json.dumps(message).encode() + b"\n")
        time.sleep(hold)
        chunk(handler, b"")

    return script


SNAPSHOT = Snapshot((), 7)
CREATED = {"result": {"created": True}}


def test_a_watch_ends_with_the_first_event(gateway: Callable[..., Etcd3Store]) -> None:
    """A waiter would sleep through its turn."""
    store = gateway(lines(CREATED, {"result": {"events": [{}]}}, hold=5))
    begun = now()
    store.wait("k", SNAPSHOT, 20)
    assert now() - begun < 4


def test_a_compacted_watch_says_list_again(gateway: Callable[..., Etcd3Store]) -> None:
    """After a compaction the watch would stay silent for ever."""
    cancelled = {"canceled": True, "compact_revision": "9"}
    gateway(lines({"result": cancelled}, hold=5)).wait("k", SNAPSHOT, 20)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"error": {"message": "etcdserver: no leader"}}, "no leader"),
        ({"result": {"canceled": True, "cancel_reason": "denied"}}, "denied"),
        (CREATED, "ended the watch"),
        ("no object", "not an answer"),
    ],
)
def test_a_broken_watch_is_an_error_not_a_wake_up(
    gateway: Callable[..., Etcd3Store], message: Any, says: str
) -> None:
    """The waiter would look again at full speed."""
    with pytest.raises(StoreError, match=says):
        gateway(lines(message)).wait("k", SNAPSHOT, 20)


def test_a_silent_watch_ends_at_its_timeout(gateway: Callable[..., Etcd3Store]) -> None:
    """A connection that died half-open would hang the waiter for ever."""
    begun = now()
    gateway(lines(CREATED, hold=3)).wait("k", SNAPSHOT, 0.4)
    assert 0.3 < now() - begun < 2.5


def test_a_dripping_watch_ends_at_its_timeout(
    gateway: Callable[..., Etcd3Store],
) -> None:
    """A byte now and then would keep the read timeout from ever striking."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(40):
            chunk(handler, b" ")
            time.sleep(0.05)

    begun = now()
    gateway(drip).wait("k", SNAPSHOT, 0.4)
    assert now() - begun < 1.8


def test_a_stop_ends_a_watch_at_once(gateway: Callable[..., Etcd3Store]) -> None:
    """SIGTERM while queued would hang the service manager's stop."""
    bounds = Bounds()
    store = gateway(lines(CREATED, hold=3), bounds)
    threading.Timer(0.2, bounds.stop.request).start()
    begun = now()
    with pytest.raises(Stopped):
        store.wait("k", SNAPSHOT, 20)
    assert now() - begun < 2.5

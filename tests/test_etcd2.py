"""What python-etcd says, turned into what a caller should do next."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from integration.support.loopback import Loopback, at_last, status
from service_monitor.errors import (
    Conflict,
    RecordGone,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v2 import Etcd2Store
from service_monitor.timing import now

RECORD = Record("es/k", "v", 3, 4)

Answer = tuple[int, Any]
Serve = Callable[..., Etcd2Store]


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def serve(seen: list[str]) -> Iterator[Serve]:
    """Give a store on a server that gives these answers, the last one for ever."""
    servers: list[ThreadingHTTPServer] = []
    stores: list[Etcd2Store] = []

    def make(*answers: Answer, **access: Any) -> Etcd2Store:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append(f"{self.command} {self.path}")
                status, body = left.pop(0) if len(left) > 1 else left[0]
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                self.send_header("X-Etcd-Index", "9")
                self.send_header("X-Etcd-Cluster-Id", "c")
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        endpoint = Endpoint("http", "127.0.0.1", server.server_address[1])
        stores.append(Etcd2Store([endpoint], Access(**access), Bounds()))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def node(value: str, created: int = 3, version: int = 4) -> Answer:
    fields = {"createdIndex": created, "modifiedIndex": version, "ttl": 12}
    return 200, {
        "action": "get",
        "node": {"key": "/service_monitor/es/k", "value": value, **fields},
    }


MISSING = 404, {"errorCode": 100, "message": "Key not found", "index": 9}
EXISTS = 412, {"errorCode": 105, "message": "Key already exists"}
CHANGED = 412, {"errorCode": 101, "message": "Compare failed"}


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((404, "404 page not found"), StoreRefused, "--enable-v2"),
        ((401, {"errorCode": 110, "message": "no"}), StoreRefused, "no"),
        ((500, {"errorCode": 300, "message": "Raft"}), StoreUnavailable, "Raft"),
        ((500, {"errorCode": 301, "message": "election"}), StoreUnavailable, "elec"),
        ((200, "no json"), StoreRefused, "not an answer of etcd's v2 API: no json"),
        ((200, {"hits": []}), StoreRefused, "not an answer of etcd's v2 API.*hits"),
        ((200, ""), StoreUnavailable, "an empty answer"),
        ((404, {"message": "no Route"}), StoreRefused, "no Route.*--enable-v2"),
        ((404, "<h1>Not Found</h1>"), StoreRefused, "HTTP 404: Not Found.*proxy"),
        ((400, "CommonName of client"), StoreRefused, "read: HTTP 400: CommonName"),
        ((400, "an HTTP request to an HTTPS server"), StoreRefused, "etcd2s://"),
        ((403, "Forbidden"), StoreRefused, "HTTP 403: Forbidden"),
        ((401, "who?"), StoreRefused, "read: who\\?.*name a user"),
        ((301, "moved"), StoreRefused, "HTTP 301"),
        ((405, "Method Not Allowed"), StoreRefused, "HTTP 405"),
        ((429, "slow down"), StoreUnavailable, "HTTP 429: slow down"),
        ((502, "<h1>Bad Gateway</h1>"), StoreUnavailable, "HTTP 502: Bad Gateway"),
        ((503, {"message": "x"}), StoreUnavailable, "HTTP 503"),
        ((403, {"errorCode": 107, "message": "Root"}), StoreRefused, "read: Root"),
        ((400, {"errorCode": 104, "message": "Not a dir"}), StoreRefused, "Not a dir"),
        ((400, {"errorCode": 209, "message": "Invalid"}), StoreRefused, "Invalid"),
        ((400, "x" * 10**6), StoreRefused, "HTTP 400: x{160}\\.\\.\\.$"),
    ],
)
def test_refused_is_told_from_unavailable(
    serve: Serve, answer: Answer, error: type[Exception], says: str
) -> None:
    """An etcd 3.6, which has no v2 API, would look like a network fault."""
    with pytest.raises(error, match=says):
        serve(answer).list("es/")


def test_a_page_of_a_proxy_is_not_nobody(serve: Serve) -> None:
    """A 404 of a proxy would pass for "no host is up", and a second cluster be founded:
    python-etcd takes any 404 with JSON for a key that is not there."""
    page = 404, {"message": "no Route matched with those values"}
    calls: list[Callable[[Etcd2Store], object]] = [
        lambda store: store.list("es/"),
        lambda store: store.time_left(RECORD),
        lambda store: store.keep_alive(RECORD, 15),
        lambda store: store.delete(RECORD),
        lambda store: store.wait("es/k", Snapshot((), 1), 5.0),
    ]
    for call in calls:
        with pytest.raises(StoreRefused, match="no Route matched"):
            call(serve(page))


def test_a_user_that_is_asked_for_is_named(serve: Serve) -> None:
    """An operator would look for the password of a user that was never given."""
    answer = 401, {"errorCode": 110, "message": "no"}
    with pytest.raises(StoreRefused, match="name a user"):
        serve(answer).list("es/")
    with pytest.raises(StoreRefused, match="is the password of 'u' right"):
        serve(answer, user="u", password="s3cret").list("es/")


def test_a_refusal_names_the_operation(serve: Serve) -> None:
    """Nobody would know whether reading or writing is not allowed."""
    answer = 400, "no"
    calls: list[tuple[Callable[[Etcd2Store], object], str]] = [
        (lambda store: store.list("es/"), "read"),
        (lambda store: store.create("es/k", "v", 15), "write"),
        (lambda store: store.update(RECORD, "v", 15), "write"),
        (lambda store: store.keep_alive(RECORD, 15), "renew a record"),
        (lambda store: store.delete(RECORD), "delete"),
        (lambda store: store.wait("es/k", Snapshot((), 1), 5.0), "watch"),
    ]
    for call, doing in calls:
        with pytest.raises(StoreRefused, match=f"cannot {doing}: HTTP 400: no"):
            call(serve(answer))


def test_tls_and_plain_ports_are_told_apart(
    serve: Serve,
) -> None:
    """`etcd2s://` where `etcd2://` belongs would look like an outage."""
    alert = b"\x15\x03\x01\x00\x02\x02F"
    with (
        closing(Loopback(at_last(alert))) as secured,
        closing(Loopback(at_last(status("400 Bad Request")))) as plain,
    ):
        for server, scheme, says in (
            (secured, "http", "it speaks TLS: use etcd2s://"),
            (plain, "https", "it speaks no TLS: use etcd2://"),
        ):
            endpoint = Endpoint(scheme, "127.0.0.1", server.port)
            with pytest.raises(StoreRefused, match=says):
                Etcd2Store([endpoint], Access(), Bounds()).list("es/")


def test_a_port_that_hangs_up_is_explained() -> None:
    """A port of another kind would be taken for a dead network."""
    with closing(Loopback(lambda connection: None)) as server:
        endpoint = Endpoint("http", "127.0.0.1", server.port)
        with pytest.raises(StoreUnavailable, match="etcd2s://"):
            Etcd2Store([endpoint], Access(), Bounds()).list("es/")


def test_a_refusal_is_asked_once(serve: Serve, seen: list[str]) -> None:
    """python-etcd's lock makes a hot loop of a 401."""
    with pytest.raises(StoreRefused):
        serve((401, {"errorCode": 110, "message": "no"})).list("es/")
    assert len(seen) == 1


def test_nobody_there_is_unavailable() -> None:
    """The reason would be python-etcd's traceback."""
    store = Etcd2Store([Endpoint("http", "127.0.0.1", 1)], Access(), Bounds())
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1: connection refused"):
        store.list("es/")


def test_a_create_repeated_after_a_lost_reply_is_a_success(serve: Serve) -> None:
    """A node would wait behind its own ticket."""
    assert serve(EXISTS, node("mine")).create("es/k", "mine", 15).created == 3


def test_a_create_on_a_record_just_expired_tries_again(serve: Serve) -> None:
    """The error would tell of a record that is not there."""
    assert serve(EXISTS, MISSING, node("mine")).create("es/k", "mine", 15).created == 3


def test_an_update_repeated_after_a_lost_reply_is_a_success(serve: Serve) -> None:
    """A granted lease would be taken for somebody else's."""
    record = serve(CHANGED, node("w", version=8)).update(RECORD, "w", 60)
    assert record.version == 8


@pytest.mark.parametrize("after", [MISSING, node("v", created=5)])
def test_an_update_of_another_life_is_gone(serve: Serve, after: Answer) -> None:
    """A ticket made anew would be granted in place of the old one."""
    with pytest.raises(RecordGone):
        serve(CHANGED, after).update(RECORD, "w", 60)


def test_a_refresh_repeated_after_a_lost_reply_is_a_success(serve: Serve) -> None:
    """One lost keepalive would cost the place in the queue."""
    assert serve(CHANGED, node("v", version=8)).keep_alive(RECORD, 15).version == 8


def test_a_refresh_of_a_changed_record_is_a_conflict(serve: Serve) -> None:
    """A replaced waiter would keep its successor's ticket alive."""
    with pytest.raises(Conflict):
        serve(CHANGED, node("other", version=8)).keep_alive(RECORD, 15)


def test_a_delete_of_another_life_does_nothing(serve: Serve) -> None:
    """A newer start's lease would be freed."""
    serve(CHANGED, node("v", created=5)).delete(RECORD)
    with pytest.raises(Conflict):
        serve(CHANGED, node("v", version=8)).delete(RECORD)


def test_time_left_belongs_to_the_record_asked_for(serve: Serve) -> None:
    """`status` would show a newer ticket's seconds."""
    assert serve(node("v")).time_left(RECORD) == 12
    assert serve(node("v", created=5)).time_left(RECORD) == 0
    assert serve(MISSING).time_left(RECORD) == 0


def test_a_cleared_index_says_list_again(serve: Serve, seen: list[str]) -> None:
    """A naive watch loop made 4,439 calls in 3 s here."""
    cleared = 400, {"errorCode": 401, "message": "The event is outdated"}
    serve(cleared).wait("es/k", Snapshot((), 1), 20)
    assert len(seen) == 1


def test_a_watch_that_fails_is_an_error(serve: Serve) -> None:
    """The waiter would look again at full speed."""
    with pytest.raises(StoreUnavailable):
        serve((500, {"errorCode": 300, "message": "Raft"})).wait(
            "es/k", Snapshot((), 1), 20
        )


def test_a_wait_for_gone_goes_on_after_other_events(
    serve: Serve, seen: list[str]
) -> None:
    """Each keepalive would wake the waiter behind."""
    status, body = node("v")
    gone = status, body | {"action": "expire"}
    begun = now()
    serve((status, body | {"action": "update"}), gone).wait(
        "es/k", Snapshot((), 1), 20, gone=True
    )
    assert now() - begun < 10
    assert ["waitIndex=2" in seen[0], "waitIndex=5" in seen[1]] == [True, True]


# python-etcd drops the answer unread, with its connection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_cluster_is_noticed(serve: Serve) -> None:
    """An index of the old cluster would be waited for in the new one."""
    store = serve(node("v"))
    store.list("es/k")
    store._clients[store._failover.current].expected_cluster_id = "other"
    with pytest.raises(StoreUnavailable, match="another cluster"):
        store.list("es/k")
    assert store.list("es/k").records
    gc.collect()


def test_a_primitive_has_one_deadline_for_all_its_requests(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round would go without a sign of life for longer than the watchdog allows."""
    node = {"key": "/service_monitor/es/k", "value": "w", "ttl": 9}
    node |= {"createdIndex": 3, "modifiedIndex": 5}
    found = 200, {"action": "get", "node": node}
    store = serve(found, CHANGED, found)
    real = store._failover.call

    def slow(function: Any, seconds: float) -> Any:
        asked.append(seconds)
        time.sleep(0.3)
        return real(function, seconds)

    asked: list[float] = []
    monkeypatch.setattr(store._failover, "call", slow)
    with pytest.raises(Conflict):
        store.update(RECORD, "v", None)
    assert len(asked) == 3
    assert asked[0] - asked[1] > 0.25
    assert asked[1] - asked[2] > 0.25
    asked.clear()
    store.time_left(RECORD)
    assert asked[0] > 4.9

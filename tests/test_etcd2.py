"""What python-etcd says, turned into what a caller should do next."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service_monitor.calls import Stop
from service_monitor.errors import (
    Conflict,
    RecordGone,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.records import Record, Snapshot
from service_monitor.stores.endpoints import Access, Endpoint
from service_monitor.stores.etcd2 import Etcd2Store
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
        stores.append(Etcd2Store([endpoint], Access(**access), Stop()))
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
        ((200, "no json"), StoreUnavailable, "not valid JSON"),
    ],
)
def test_refused_is_told_from_unavailable(
    serve: Serve, answer: Answer, error: type[Exception], says: str
) -> None:
    """An etcd 3.6, which has no v2 API, would look like a network fault."""
    with pytest.raises(error, match=says):
        serve(answer).list("es/")


def test_a_refusal_is_asked_once(serve: Serve, seen: list[str]) -> None:
    """python-etcd's lock makes a hot loop of a 401."""
    with pytest.raises(StoreRefused):
        serve((401, {"errorCode": 110, "message": "no"})).list("es/")
    assert len(seen) == 1


def test_nobody_there_is_unavailable() -> None:
    """The reason would be python-etcd's traceback."""
    store = Etcd2Store([Endpoint("http", "127.0.0.1", 1)], Access(), Stop())
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

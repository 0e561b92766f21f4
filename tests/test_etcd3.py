"""The v3 gateway's answers, turned into what a caller should do next."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
import responses

from integration.support.gateway import Gateway, Handler
from service_monitor.errors import (
    RecordGone,
    Stopped,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Stop
from service_monitor.records import Record, Snapshot
from service_monitor.stores.etcd import gateway as etcd_gateway
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.timing import now

ONE, TWO = "http://one:2379", "http://two:2379"
HEADER = {"revision": "7"}
EMPTY = {"header": HEADER}
RECORD = Record("k", "v", 3, 4, 99)


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mocked:
        yield mocked


def store_on(*names: str, **access: Any) -> Etcd3Store:
    endpoints = [Endpoint("http", name, 2379) for name in names or ("one",)]
    return Etcd3Store(endpoints, Access(**access), Stop())


def sent(mock: responses.RequestsMock) -> list[dict[str, Any]]:
    return [json.loads(call.request.body or b"") for call in mock.calls]


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (403, {"message": "permission denied", "code": 7}, StoreRefused, "permission"),
        (400, {"message": "bad request", "code": 3}, StoreRefused, "bad request"),
        (404, "404 page not found", StoreRefused, "3.4 or later"),
        (503, {"message": "etcdserver: no leader", "code": 14}, StoreUnavailable, "no"),
        (429, {"message": "no space", "code": 8}, StoreUnavailable, "no space"),
        (500, "<html>proxy error</html>", StoreUnavailable, "HTTP 500"),
        (200, "<html>captive portal</html>", StoreRefused, "not an .*: captive portal"),
        (200, {"hits": []}, StoreRefused, "not an answer .*hits"),
        (200, [1], StoreRefused, "not an answer"),
        (200, {"header": {}}, StoreRefused, "not an answer"),
        (200, {"header": HEADER, "kvs": [{}]}, StoreRefused, "not an answer"),
        (200, "", StoreUnavailable, "an empty answer"),
        (502, {"error": {"message": "gone", "code": 14}}, StoreUnavailable, "gone"),
    ],
)
def test_refused_is_told_from_unavailable(
    mock: responses.RequestsMock,
    status: int,
    body: Any,
    error: type[Exception],
    says: str,
) -> None:
    """An operator would look for a network fault where a role is missing."""
    text = body if isinstance(body, str) else json.dumps(body)
    mock.post(f"{ONE}/v3/kv/range", status=status, body=text)
    with pytest.raises(error, match=says):
        store_on().list("es/")


def test_the_next_endpoint_is_asked_and_stays_first(
    mock: responses.RequestsMock,
) -> None:
    """One dead member would fail every command, or slow each of its calls."""
    mock.post(f"{ONE}/v3/kv/range", body=requests.ConnectionError("refused"))
    mock.post(f"{TWO}/v3/kv/range", json=EMPTY)
    store = store_on("one", "two")
    store.list("es/")
    store.list("es/")
    hosts = [call.request.url for call in mock.calls]
    assert hosts == [f"{h}/v3/kv/range" for h in (ONE, TWO, TWO)]


def test_all_endpoints_down_names_each(mock: responses.RequestsMock) -> None:
    """The operator would not know which address was tried."""
    for url in (ONE, TWO):
        mock.post(f"{url}/v3/kv/range", body=ConnectionRefusedError())
    with pytest.raises(StoreUnavailable) as failed:
        store_on("one", "two").list("es/")
    assert str(failed.value) == (
        "http://one:2379: connection refused; http://two:2379: connection refused"
    )


def txn(**answer: Any) -> dict[str, Any]:
    return {"header": HEADER, **answer}


def kv(value: str, lease: int, created: int = 3, version: int = 4) -> dict[str, str]:
    return {
        "key": base64.b64encode(b"/service_monitor/k").decode(),
        "value": base64.b64encode(value.encode()).decode(),
        "create_revision": str(created),
        "mod_revision": str(version),
        "lease": str(lease),
    }


def found(record: dict[str, str] | None) -> dict[str, Any]:
    kvs = {"kvs": [record]} if record else {}
    return txn(responses=[{"response_range": kvs}])


def test_a_create_repeated_after_a_lost_reply_is_a_success(
    mock: responses.RequestsMock,
) -> None:
    """A node would wait behind its own ticket."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/kv/txn", body=requests.ConnectionError("reset"))
    store = store_on("one", "two")

    def again(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        lease = int(sent(mock)[0]["ID"])
        return 200, {}, json.dumps(found(kv("v", lease)))

    mock.add_callback(responses.POST, f"{TWO}/v3/kv/txn", callback=again)
    record = store.create("k", "v", 15)
    assert (record.created, record.version) == (3, 4)


def test_a_repeated_grant_is_a_success(mock: responses.RequestsMock) -> None:
    """A lost reply to the lease grant would fail the whole command."""
    body = {"message": "etcdserver: lease already exists", "code": 9}
    mock.post(f"{ONE}/v3/lease/grant", status=400, json=body)
    mock.post(f"{ONE}/v3/lease/keepalive", json={"result": {"TTL": "15"}})
    mock.post(f"{ONE}/v3/kv/txn", json=txn(succeeded=True))
    assert store_on().create("k", "v", 15).created == 7


def test_a_grant_in_doubt_is_asked_for_again_under_its_id(
    mock: responses.RequestsMock,
) -> None:
    """An outage would leave etcd a lease for each try."""
    mock.post(f"{ONE}/v3/lease/grant", body=requests.ConnectionError("reset"))
    store = store_on()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.create("k", "v", 15)
    assert len({body["ID"] for body in sent(mock)}) == 1


@pytest.mark.parametrize(
    "message", ["user name is empty", "auth: revision in header is old"]
)
def test_users_that_change_while_we_run_are_followed(
    mock: responses.RequestsMock, message: str
) -> None:
    """A watch would publish nothing more until somebody restarts it."""
    stale = {"message": f"etcdserver: {message}", "code": 3}
    mock.post(f"{ONE}/v3/auth/authenticate", json={"header": HEADER, "token": "t"})
    mock.post(f"{ONE}/v3/kv/range", status=400, json=stale)
    mock.post(f"{ONE}/v3/kv/range", json=EMPTY)
    assert store_on(user="u", password="p").list("es/").records == ()
    assert len([c for c in mock.calls if "authenticate" in str(c.request.url)]) == 2


def test_a_grant_that_is_refused_is_an_error(mock: responses.RequestsMock) -> None:
    """A ticket would be written on a lease that is not there."""
    body = {"message": "too large lease TTL", "code": 11}
    mock.post(f"{ONE}/v3/lease/grant", status=400, json=body)
    with pytest.raises(StoreRefused, match="too large"):
        store_on().create("k", "v", 15)


def test_a_dead_prepared_lease_is_replaced(mock: responses.RequestsMock) -> None:
    """A granted ticket would hang on a lease about to end."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/lease/keepalive", json={"result": {"ID": "1"}})
    mock.post(f"{ONE}/v3/kv/txn", json=txn(succeeded=True))
    store = store_on()
    store.prepare(60)
    store.update(RECORD, "w", 60)
    bodies = sent(mock)
    used = bodies[-1]["success"][0]["request_put"]["lease"]
    assert used == bodies[2]["ID"] != bodies[0]["ID"]


def test_an_expired_keepalive_is_gone(mock: responses.RequestsMock) -> None:
    """The gateway says 200 for a dead lease, just without a TTL."""
    mock.post(f"{ONE}/v3/lease/keepalive", json={"result": {"ID": "99"}})
    with pytest.raises(RecordGone):
        store_on().keep_alive(RECORD, 15)


def test_a_keepalive_without_an_answer_is_not_gone(
    mock: responses.RequestsMock,
) -> None:
    """A proxy's page would end the keepalive of a healthy service."""
    mock.post(f"{ONE}/v3/lease/keepalive", json={"header": HEADER})
    with pytest.raises(StoreError):
        store_on().keep_alive(RECORD, 15)


def test_close_revokes_only_what_carries_no_record(
    mock: responses.RequestsMock,
) -> None:
    """A lease would end with its process, or unused ones pile up in etcd."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/kv/txn", json=txn(succeeded=True))
    mock.post(f"{ONE}/v3/lease/revoke", json=EMPTY)
    store = store_on()
    store.create("k", "v", 15)
    store.prepare(60)
    store.close()
    granted = [b["ID"] for b in sent(mock) if "TTL" in b]
    assert mock.calls[-1].request.url == f"{ONE}/v3/lease/revoke"
    assert sent(mock)[-1] == {"ID": granted[1]}
    assert len(mock.calls) == 4


def test_close_spares_a_lease_whose_reply_was_lost(
    mock: responses.RequestsMock,
) -> None:
    """acquire-lease would exit 0 and take its lease back in the same breath."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/kv/txn", body=requests.ConnectionError("reset"))
    store = store_on()
    with pytest.raises(StoreUnavailable):
        store.update(RECORD, "held", 60)
    held = kv("held", int(sent(mock)[0]["ID"]))
    mock.post(f"{ONE}/v3/kv/range", json=txn(kvs=[held]))
    store.list("k")
    store.close()
    assert "revoke" not in str(mock.calls[-1].request.url)


def test_close_of_a_dead_store_asks_once(mock: responses.RequestsMock) -> None:
    """Ending would take one timeout for each lease."""
    mock.post(f"{ONE}/v3/lease/grant", body=requests.ConnectionError("away"))
    mock.post(f"{ONE}/v3/lease/revoke", body=requests.ConnectionError("away"))
    store = store_on()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            store.create("k", "v", 15)
    store.close()
    assert sum("revoke" in str(c.request.url) for c in mock.calls) == 1


def test_a_role_is_asked_for_once_and_again_when_it_expired(
    mock: responses.RequestsMock,
) -> None:
    """Commands would fail five minutes after they began."""
    expired = {"message": "etcdserver: invalid auth token", "code": 16}
    mock.post(f"{ONE}/v3/auth/authenticate", json={"header": HEADER, "token": "t1"})
    mock.post(f"{ONE}/v3/kv/range", json=EMPTY)
    store = store_on(user="u", password="p")
    store.list("es/")
    store.list("es/")
    mock.replace(
        responses.POST, f"{ONE}/v3/kv/range", status=401, body=json.dumps(expired)
    )
    mock.replace(
        responses.POST,
        f"{ONE}/v3/auth/authenticate",
        json={"header": HEADER, "token": "t2"},
    )
    with pytest.raises(StoreRefused, match="invalid auth token"):
        store.list("es/")
    assert [c.request.headers.get("Authorization") for c in mock.calls] == [
        None,
        "t1",
        "t1",
        "t1",
        None,
        "t2",
    ]


def test_a_wrong_password_names_the_user_only(mock: responses.RequestsMock) -> None:
    """The password would stand in the log."""
    body = {"message": "authentication failed, invalid user ID or password", "code": 3}
    mock.post(f"{ONE}/v3/auth/authenticate", status=400, json=body)
    with pytest.raises(StoreRefused, match="user 'u'") as refused:
        store_on(user="u", password="s3cret").list("es/")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(Access(user="u", password="s3cret"))


def test_credentials_for_an_open_etcd_are_no_error(
    mock: responses.RequestsMock,
) -> None:
    """ETCDCTL_USER left in the environment would break an etcd without users."""
    body = {"message": "etcdserver: authentication is not enabled", "code": 9}
    mock.post(f"{ONE}/v3/auth/authenticate", status=400, json=body)
    mock.post(f"{ONE}/v3/kv/range", json=EMPTY)
    assert store_on(user="u", password="p").list("es/").records == ()


Script = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def gateway() -> Iterator[Callable[..., Etcd3Store]]:
    """Give a store on a server of ours that plays a script for each watch."""
    servers: list[ThreadingHTTPServer] = []

    def serve(script: Script, stop: Stop | None = None) -> Etcd3Store:
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
        return Etcd3Store([endpoint], Access(), stop or Stop())

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
    stop = Stop()
    store = gateway(lines(CREATED, hold=3), stop)
    threading.Timer(0.2, stop.request).start()
    begun = now()
    with pytest.raises(Stopped):
        store.wait("k", SNAPSHOT, 20)
    assert now() - begun < 2.5


# leases that end too early

LEASE_GONE = {"message": "etcdserver: requested lease not found", "code": 5}


def lease_of(body: dict[str, Any]) -> str:
    return str(body["success"][0]["request_put"]["lease"])


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("write", ["create", "update"])
def test_a_lease_that_ended_before_its_record_is_replaced(
    mock: responses.RequestsMock, write: str, prepared: bool
) -> None:
    """A machine that paused between two requests would be told that it is refused, and
    its start end."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/kv/txn", status=404, json=LEASE_GONE)
    mock.post(f"{ONE}/v3/kv/txn", json=txn(succeeded=True))
    store = store_on()
    if prepared:
        mock.post(f"{ONE}/v3/lease/keepalive", json={"result": {"TTL": "15"}})
        store.prepare(15)
    what = ("k", "v", 15) if write == "create" else (RECORD, "w", 15)
    record = getattr(store, write)(*what)
    written = [lease_of(body) for body in sent(mock) if "success" in body]
    assert len(set(written)) == 2
    assert str(record.handle) == written[1]
    store.close()
    assert "revoke" not in str(mock.calls[-1].request.url)


@pytest.mark.parametrize("write", ["create", "update"])
def test_a_lease_that_ended_twice_is_no_refusal(
    mock: responses.RequestsMock, write: str
) -> None:
    """A start would end at once for a pause that is over a moment later."""
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/kv/txn", status=404, json=LEASE_GONE)
    store = store_on()
    what = ("k", "v", 15) if write == "create" else (RECORD, "w", 15)
    with pytest.raises(StoreUnavailable, match="lease not found"):
        getattr(store, write)(*what)
    assert len([body for body in sent(mock) if "success" in body]) == 2


def test_a_doubtful_lease_that_ended_is_replaced(mock: responses.RequestsMock) -> None:
    """After an outage longer than the ttl the first ticket would be refused."""
    mock.post(f"{ONE}/v3/lease/grant", body=requests.ConnectionError("reset"))
    store = store_on()
    with pytest.raises(StoreUnavailable):
        store.create("k", "v", 15)
    exists = {"message": "etcdserver: lease already exists", "code": 9}
    mock.replace(responses.POST, f"{ONE}/v3/lease/grant", status=400, json=exists)
    mock.post(f"{ONE}/v3/lease/grant", json=EMPTY)
    mock.post(f"{ONE}/v3/lease/keepalive", json={"result": {"ID": "1"}})
    mock.post(f"{ONE}/v3/kv/txn", json=txn(succeeded=True))
    assert store.create("k", "v", 15).created == 7
    asked = [body["ID"] for body in sent(mock) if "TTL" in body]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize("ttl", [{}, {"TTL": "0"}, {"TTL": "-1"}])
def test_a_lease_in_its_last_second_has_no_time_left(
    mock: responses.RequestsMock, ttl: dict[str, str]
) -> None:
    """The gateway leaves a zero out: `status` ended with 69, and a start logged that
    the store refuses us, each time that a record was about to lapse."""
    lease = {"ID": "3050562599555331814", "grantedTTL": "30"}
    mock.post(f"{ONE}/v3/lease/timetolive", json=EMPTY | lease | ttl)
    assert store_on().time_left(RECORD) == 0


def test_what_is_no_lease_is_no_time_left(mock: responses.RequestsMock) -> None:
    """Another program's answer would be read as "it is over"."""
    mock.post(f"{ONE}/v3/lease/timetolive", json=EMPTY)
    with pytest.raises(StoreRefused, match="not an answer of etcd's v3 API"):
        store_on().time_left(RECORD)


def test_a_lease_that_etcd_does_not_know_is_gone(mock: responses.RequestsMock) -> None:
    """A watch would be told that the store refuses it, and not publish again."""
    for call in "keepalive", "timetolive":
        mock.post(f"{ONE}/v3/lease/{call}", status=404, json=LEASE_GONE)
    with pytest.raises(RecordGone):
        store_on().keep_alive(RECORD, 15)
    assert store_on().time_left(RECORD) == 0


def test_a_lease_in_its_last_second_has_nothing_left(
    mock: responses.RequestsMock,
) -> None:
    """A start that comes just then would be refused: JSON leaves a TTL of 0 out."""
    last = {"header": HEADER, "ID": "99", "grantedTTL": "2"}
    mock.post(f"{ONE}/v3/lease/timetolive", json=last)
    assert store_on().time_left(RECORD) == 0


def test_a_write_has_one_deadline_for_all_its_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call would last three times as long as documented, and a round of `watch`
    longer than the watchdog allows."""
    monkeypatch.setattr(etcd_gateway, "CALL_TIMEOUT", 1.0)

    def slow(handler: Handler) -> bool:
        time.sleep(0.4)
        gone = handler.path == "/v3/kv/txn"
        handler.reply(*((404, LEASE_GONE) if gone else (200, EMPTY)))
        return True

    server = Gateway()
    server.before = slow
    begun = now()
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        server.store(user=None, password=None).create("k", "v", 15)
    assert now() - begun < 1.5
    server.close()

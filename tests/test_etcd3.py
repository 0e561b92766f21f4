"""What etcd answers over its gateway, and what it means to the caller."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests
import responses

from integration.support.etcd_answers import (
    EMPTY,
    HEADER,
    LEASE_GONE,
    ONE,
    TWO,
    found,
    kv,
    sent,
    store_on,
    txn,
)
from integration.support.gateway import Gateway, Handler
from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.stores.etcd import gateway as etcd_gateway
from service_monitor.stores.etcd.endpoints import Access
from service_monitor.timing import now


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

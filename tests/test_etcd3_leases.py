"""etcd's own leases: one for each record, prepared, replaced and given back."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import responses

from integration.support.etcd_answers import (
    EMPTY,
    HEADER,
    LEASE_GONE,
    ONE,
    RECORD,
    kv,
    sent,
    store_on,
    txn,
)
from service_monitor.errors import (
    RecordGone,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)


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

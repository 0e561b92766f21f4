"""A mistake of ours is a crash: neither an outage, nor what the store refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import responses

from integration.support.etcd_answers import ONE, RECORD, kv, store_on, txn
from integration.support.loopback import Serve, answering, status
from integration.support.stores import open_url
from integration.support.stubbed_dynamodb import StubbedService
from service_monitor.errors import StoreRefused
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.clock import StoreClock
from service_monitor.stores.etcd.gateway import Gateway
from service_monitor.stores.etcd.v2_client import _Client
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.stores.sqlite.store import SqliteStore

BUGS = [TypeError, KeyError, AttributeError, IndexError]


def failing(bug: type[Exception]) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise bug("ours")

    return fail


@pytest.mark.parametrize("bug", [*BUGS, ValueError])
def test_a_bug_in_a_reader_of_etcd_v3_is_no_strange_answer(
    mock: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    """Every start would be refused by "another program", which is ours."""
    mock.post(f"{ONE}/v3/kv/range", json=txn(kvs=[kv("v", 99)]))
    monkeypatch.setattr(Etcd3Store, "_record", failing(bug))
    with pytest.raises(bug, match="ours"):
        store_on().list("es/")


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_beside_a_request_is_no_outage(
    mock: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    """It would be waited out until the timeout, and never be found."""
    monkeypatch.setattr(Gateway, "_as_user", failing(bug))
    with pytest.raises(bug, match="ours"):
        store_on().time_left(RECORD)


@pytest.mark.parametrize("bug", [*BUGS, ValueError])
def test_a_bug_in_the_reader_of_etcd_v2_is_no_outage(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    """It would be waited out until the timeout, and never be found."""
    server = serve(answering(status("200 OK", body=b"{}")))
    monkeypatch.setattr(_Client, "_handle_server_response", failing(bug))
    store = open_url(f"etcd2://127.0.0.1:{server.port}", Bounds(), {})
    with pytest.raises(bug, match="ours"):
        store.list("es/")


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_a_call_to_dynamodb_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    """We would send people to look at their AWS settings."""
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.setenv(name, "key")
    dynamo = StubbedService(Bounds())
    dynamo.finds(None)
    monkeypatch.setattr(StoreClock, "learn", failing(bug))
    with pytest.raises(bug, match="ours"):
        dynamo.store.time_left(RECORD)


def test_a_wrong_statement_of_ours_is_no_outage_of_sqlite() -> None:
    """It would be waited out until the timeout, and never be found."""
    store = SqliteStore(":memory:", Bounds())
    given: Any = object()
    with pytest.raises(sqlite3.ProgrammingError):
        store.create("es/lease/a", given, 30)


STRANGE = [
    "[]",
    "null",
    "7",
    '"x"',
    "[" * 5000,
    '{"header": 7}',
    '{"header": {"revision": "x"}}',
    '{"header": {"revision": true}}',
    '{"header": {"revision": "7"}, "kvs": 3}',
    '{"header": {"revision": "7"}, "kvs": {"key": "a"}}',
    '{"header": {"revision": "7"}, "kvs": ["a"]}',
    '{"header": {"revision": "7"}, "kvs": [{}]}',
    '{"header": {"revision": "7"}, "kvs": [{"key": "a"}]}',
    '{"header": {"revision": "7"}, "kvs": [{"key": "Yg==", "create_revision": "1"}]}',
]


@pytest.mark.parametrize("text", STRANGE)
def test_an_answer_of_another_shape_is_not_etcds(
    mock: responses.RequestsMock, text: str
) -> None:
    """A page of a proxy would end in our traceback, or read as "nobody is up"."""
    mock.post(f"{ONE}/v3/kv/range", body=text)
    with pytest.raises(StoreRefused, match="not an answer of etcd's v3 API"):
        store_on().list("es/")


STRANGE_NODES = [
    "{}",
    '{"node": 5}',
    '{"node": {}}',
    '{"action": "get", "node": {"key": "/p/a", "value": 3}}',
    '{"action": "get", "node": {"key": "/p/a", "value": "v"}}',
    '{"action": "get", "node": {"dir": true, "nodes": 3}}',
    '{"action": "get", "node": {"dir": true, "nodes": [{"key": "/p/a"}]}}',
    '{"action": "get", "node": {"key": "/p/a", "createdIndex": 1, "modifiedIndex": 2}}',
]


@pytest.mark.parametrize("text", STRANGE_NODES)
def test_a_node_of_another_shape_is_not_etcds(serve: Serve, text: str) -> None:
    """A page of a proxy would end in our traceback, or read as "nobody is up"."""
    server = serve(answering(status("200 OK", body=text.encode())))
    store = open_url(f"etcd2://127.0.0.1:{server.port}/p", Bounds(), {})
    with pytest.raises(StoreRefused, match="not an answer of etcd's v2 API"):
        store.list("es/")

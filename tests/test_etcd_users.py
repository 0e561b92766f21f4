"""A token that died, told from a user who may not: for each call that we make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from integration.support.commands import HANG
from integration.support.gateway import (
    CANCELLED,
    DENIED,
    HEADER,
    INVALID,
    LOGIN,
    Gateway,
    Handler,
    Reply,
)
from service_monitor.errors import (
    RecordGone,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.records import Record, Snapshot
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.timing import now

RECORD = Record("k", "v", 3, 4, 99)
SNAPSHOT = Snapshot((), 7)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.close()


def refuse(handler: Handler) -> None:
    handler.reply(401, INVALID)


def deny(handler: Handler) -> None:
    handler.reply(403, DENIED)


def hang_up(handler: Handler) -> None:
    handler.hang_up()


def proxy(handler: Handler) -> None:
    handler.reply(502, "<html><h1>502 Bad Gateway</h1></html>")


def name_is_empty(handler: Handler) -> None:
    handler.reply(400, {"message": "etcdserver: user name is empty", "code": 3})


def transport(handler: Handler) -> None:
    handler.reply(503, {"message": "transport is closing", "code": 14})


DEAD = [refuse, deny, hang_up, proxy, name_is_empty, transport]
CALLS: list[Callable[[Etcd3Store], object]] = [
    lambda store: store.list("es/"),
    lambda store: store.create("k", "v", 15),
    lambda store: store.update(RECORD, "w", None),
    lambda store: store.update(RECORD, "w", 30),
    lambda store: store.keep_alive(RECORD, 15),
    lambda store: store.delete(RECORD),
    lambda store: store.time_left(RECORD),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dead", DEAD)
def test_a_token_that_died_is_replaced_within_the_call(
    gateway: Gateway, call: Callable[[Etcd3Store], object], dead: Reply
) -> None:
    """After a restart of etcd nothing would work until somebody restarts us: some
    gateways close the connection instead of answering 401 (etcd#15256, #20332)."""
    store = gateway.store()
    store.list("es/")
    gateway.forget_tokens()
    gateway.dead = dead
    call(store)
    assert gateway.logins == 2
    assert [c.token for c in gateway.calls].count("t1") == 2


def has_no_record(handler: Handler) -> bool:
    if handler.path == "/v3/kv/txn":
        handler.reply(200, HEADER | {"responses": [{"response_range": {}}]})
        return True
    return False


@pytest.mark.parametrize("dead", DEAD)
def test_a_token_that_died_is_given_back_for(gateway: Gateway, dead: Reply) -> None:
    """The lease of a command that ended would stay in etcd to its end."""
    store = gateway.store()
    gateway.before = has_no_record
    with pytest.raises(RecordGone):
        store.update(RECORD, "w", 30)
    gateway.forget_tokens()
    gateway.dead = dead
    store.close()
    assert [c.path for c in gateway.calls][-2:] == [LOGIN, "/v3/lease/revoke"]


def cancelled(handler: Handler) -> None:
    cancel = {"created": True, "canceled": True, "cancel_reason": CANCELLED}
    handler.stream({"result": cancel}, hold=10)


def cancelled_as_invalid(handler: Handler) -> None:
    cancel = {"canceled": True, "cancel_reason": "etcdserver: invalid auth token"}
    handler.stream({"result": {"created": True}}, {"result": cancel}, hold=10)


def stream_error(handler: Handler) -> None:
    message = {"grpc_code": 7, "http_code": 403, "message": "permission denied"}
    handler.stream({"error": message})


def ended(handler: Handler) -> None:
    handler.stream()


WATCHES = [*DEAD, cancelled, cancelled_as_invalid, stream_error, ended]


@pytest.mark.parametrize("dead", WATCHES)
def test_a_watch_with_a_dead_token_goes_on_with_a_new_one(
    gateway: Gateway, dead: Reply
) -> None:
    """A waiter would ask again and again with a token that nobody knows."""
    store = gateway.store()
    store.list("es/")
    gateway.forget_tokens()
    gateway.dead = dead
    begun = now()
    store.wait("k", SNAPSHOT, 1.0)
    assert 0.8 < now() - begun < HANG / 2
    assert [c.path for c in gateway.calls[-3:]] == ["/v3/watch", LOGIN, "/v3/watch"]


def test_a_watch_that_ended_after_it_was_made_is_no_dead_token(
    gateway: Gateway,
) -> None:
    """A proxy that cuts idle connections would cost etcd a login for each."""
    store = gateway.store()
    store.list("es/")

    def cut(handler: Handler) -> bool:
        if handler.path == "/v3/watch":
            handler.stream({"result": {"created": True}})
            return True
        return False

    gateway.before = cut
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="ended the watch"):
            store.wait("k", SNAPSHOT, 5.0)
    assert gateway.logins == 1


def answer_all(gateway: Gateway, reply: Reply) -> None:
    """Answer so whatever is asked, with any token; only the login works."""

    def before(handler: Handler) -> bool:
        if handler.path == LOGIN:
            return False
        reply(handler)
        return True

    gateway.before = before


@pytest.mark.parametrize("call", CALLS)
def test_a_fresh_token_that_is_denied_is_a_refusal(
    gateway: Gateway, call: Callable[[Etcd3Store], object]
) -> None:
    """A missing role would look like an outage, and cost a login at each try."""
    store = gateway.store()
    answer_all(gateway, deny)
    for _ in range(5):
        with pytest.raises(StoreRefused, match=r"denied.*'u'.*readwrite on") as refused:
            call(store)
        assert "s3cret" not in str(refused.value)
    assert gateway.logins <= 2


@pytest.mark.parametrize("reply", [deny, cancelled, stream_error])
def test_a_watch_that_is_denied_with_a_fresh_token_is_a_refusal(
    gateway: Gateway, reply: Reply
) -> None:
    """A user who may not read would be told that the store is away."""
    store = gateway.store()
    store.list("es/")
    answer_all(gateway, reply)
    for _ in range(3):
        with pytest.raises(StoreRefused, match="permission denied"):
            store.wait("k", SNAPSHOT, 5.0)
    assert gateway.logins == 2


@pytest.mark.parametrize("reply", [hang_up, proxy, transport])
def test_an_outage_brings_no_storm_of_logins(gateway: Gateway, reply: Reply) -> None:
    """Each login costs etcd a tenth of a second of work: a hundred waiters would keep a
    store down that is just coming back."""
    store = gateway.store()
    store.list("es/")
    answer_all(gateway, reply)
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            store.list("es/")
    assert gateway.logins == 2


def test_an_outage_of_all_costs_one_request_a_call(gateway: Gateway) -> None:
    """Logging in on top of each failed call would double the load of an outage."""
    store = gateway.store()
    store.list("es/")

    def all_down(handler: Handler) -> bool:
        handler.hang_up()
        return True

    gateway.before = all_down
    asked = len(gateway.calls)
    for _ in range(10):
        with suppress(StoreError):
            store.list("es/")
    assert len(gateway.calls) - asked <= 11
    gateway.before = lambda handler: False
    assert store.list("es/").records == ()


def test_etcds_own_trouble_is_no_dead_token(gateway: Gateway) -> None:
    """An election would make every waiter log in anew."""
    store = gateway.store()
    store.list("es/")
    error = {"message": "etcdserver: leader changed", "code": 14}
    answer_all(gateway, lambda handler: handler.reply(503, error))
    with pytest.raises(StoreUnavailable, match="leader changed"):
        store.list("es/")
    assert gateway.logins == 1


def test_without_a_user_nobody_logs_in(gateway: Gateway) -> None:
    """An etcd with users would not say that it wants one."""
    store = gateway.store(user=None, password=None)
    gateway.dead = name_is_empty
    with pytest.raises(StoreRefused, match=r"user name is empty.*name a user"):
        store.list("es/")
    assert gateway.logins == 0


def test_a_login_that_finds_the_users_changing_is_tried_again(
    gateway: Gateway,
) -> None:
    """A user added at the wrong moment would end a start for good."""
    store = gateway.store()
    old = {"message": "etcdserver: revision of auth store is old", "code": 3}

    def changing(handler: Handler) -> bool:
        if handler.path == LOGIN and gateway.logins == 1:
            handler.reply(400, old)
            return True
        return False

    gateway.before = changing
    with pytest.raises(StoreUnavailable, match=r"cannot log in.*is old"):
        store.list("es/")
    assert store.list("es/").records == ()

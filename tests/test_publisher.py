"""One service's state in the store, as it should be."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from integration.support.commands import wait_until
from integration.support.fakes import Clock, FlakyStore
from integration.support.registrations import DOWN, UP, publisher, said
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.health import Health
from service_monitor.records import Record
from service_monitor.stores.sqlite.store import SqliteStore


def test_a_registration_says_what_the_docs_promise(store: SqliteStore) -> None:
    """Other tools that read the records would break."""
    assert publisher(store, info={"rack": "r1"}).reconcile(UP)
    record = said(store)
    assert record.pop("nonce")
    assert record.pop("since").endswith("Z")
    assert record == {
        "service_id": "a",
        "host": "host-a",
        "state": "up",
        "reason": "200 OK",
        "info": {"rack": "r1"},
    }


def test_nothing_is_written_while_nothing_changes(store: SqliteStore) -> None:
    """An idle watch would cost the store a write each interval."""
    mine = publisher(store)
    mine.reconcile(UP)
    version = store.list("es/hosts/a").records[0].version
    mine.reconcile(UP)
    assert store.list("es/hosts/a").records[0].version == version


def test_since_changes_with_the_state_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` would show a service as young as its last error message."""
    times = iter("123456")
    monkeypatch.setattr(
        "service_monitor.recipes.publisher.timestamp", lambda: next(times)
    )
    mine = publisher(store)
    mine.reconcile(Health(reason="connection refused"))
    first = said(store)["since"]
    mine.reconcile(Health(reason="503 Service Unavailable"))
    assert (said(store)["since"], said(store)["reason"][:3]) == (first, "503")
    mine.reconcile(UP)
    assert said(store)["since"] != first


@pytest.mark.parametrize("fault", ["request", "reply"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_lost_message_heals_at_the_next_round(
    store: SqliteStore, fault: str, at: int
) -> None:
    """A lost write would leave the wrong state until the next change."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)
    flaky.plan(fault, at)
    with pytest.raises(StoreUnavailable):
        mine.reconcile(UP)
    assert mine.reconcile(UP)
    assert said(store)["state"] == "up"
    mine.reconcile(DOWN)
    assert said(store)["state"] == "down"


class Renewals:
    """Lets a store's time pass no faster than its records are renewed."""

    def __init__(self, store: SqliteStore, clock: Clock, ttl: float) -> None:
        self.done = 0
        self._clock = clock
        self._ttl = ttl
        self._renew = store.keep_alive
        store.keep_alive = self._count  # type: ignore[method-assign]

    def _count(self, record: Record, ttl: float) -> Record:
        renewed = self._renew(record, ttl)
        self.done += 1
        return renewed

    def outlast_the_ttl(self) -> None:
        """Let more than the ttl pass, on keepalives alone."""
        for _ in range(3):
            self._clock.advance(self._ttl * 0.6)
            before = self.done
            wait_until(lambda before=before: self.done >= before + 2)  # type: ignore[misc]


@contextmanager
def losing_the_reply(store: Any, name: str) -> Iterator[None]:
    """Let calls of this name be carried out, and their answers get lost."""
    real = getattr(store, name)

    def call(*args: Any) -> None:
        real(*args)
        raise StoreUnavailable("reply lost")

    setattr(store, name, call)
    yield
    setattr(store, name, real)


@pytest.mark.parametrize("fault", ["create", "update"])
def test_after_a_lost_reply_the_record_is_still_kept_alive(
    memory: SqliteStore, clock: Clock, fault: str
) -> None:
    """A healthy node would drop out of `hosts`, and the next one found a cluster."""
    renewals = Renewals(memory, clock, ttl=0.6)
    mine = publisher(memory, ttl=0.6)
    mine.reconcile(DOWN)
    if fault == "create":
        memory.delete(memory.list("es/hosts/a").records[0])
    with losing_the_reply(memory, fault), pytest.raises(StoreUnavailable):
        mine.reconcile(UP)
    created = memory.list("es/hosts/a").records[0].created
    renewals.done = 0
    wait_until(lambda: mine.reconcile(UP) and renewals.done >= 2)
    renewals.outlast_the_ttl()  # with no more rounds
    assert memory.list("es/hosts/a").records[0].created == created
    assert said(memory)["state"] == "up"
    mine.withdraw()


def test_a_deleted_record_comes_back(store: SqliteStore) -> None:
    """A service would stay invisible after its record lapsed in a store outage."""
    mine = publisher(store)
    mine.reconcile(UP)
    store.delete(store.list("es/hosts/a").records[0])
    assert mine.reconcile(UP)
    assert said(store)["state"] == "up"


def test_the_record_is_kept_alive_and_withdrawn(
    memory: SqliteStore, clock: Clock
) -> None:
    """A healthy service would vanish, or a stopped one stay."""
    renewals = Renewals(memory, clock, ttl=0.5)
    mine = publisher(memory, ttl=0.5)
    mine.reconcile(UP)
    renewals.outlast_the_ttl()
    assert said(memory)["state"] == "up"
    mine.withdraw()
    assert memory.list("").records == ()
    time.sleep(0.4)
    assert memory.list("").records == ()


def test_a_restarted_watch_takes_its_old_record_over(
    memory: SqliteStore, clock: Clock
) -> None:
    """After kill -9 the new watch would have to wait for the old record to lapse."""
    publisher(memory, ttl=300).reconcile(UP)
    renewals = Renewals(memory, clock, ttl=0.5)
    fresh = publisher(memory, ttl=0.5)
    assert fresh.reconcile(DOWN)
    assert said(memory)["state"] == "down"
    renewals.outlast_the_ttl()
    assert said(memory)["state"] == "down"  # kept alive by the new one
    fresh.withdraw()
    assert memory.list("").records == ()


def test_what_is_down_is_not_kept_alive_as_up(store: SqliteStore) -> None:
    """An etcd out of space refuses "down", and `hosts` would list a dead node."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)
    mine.reconcile(UP)
    flaky.plan("request", 1)  # the update; deletes go through
    with pytest.raises(StoreUnavailable):
        mine.reconcile(DOWN)
    assert store.list("es/hosts/").records == ()
    assert mine.reconcile(DOWN)
    assert said(store)["state"] == "down"


def test_of_two_watches_the_newer_wins(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes with one service id would overwrite each other for ever."""
    older, newer = publisher(store), publisher(store)
    assert older.reconcile(DOWN)
    assert newer.reconcile(UP)
    with caplog.at_level(logging.ERROR):
        assert not older.reconcile(DOWN)
        assert not older.reconcile(DOWN)
    assert caplog.text.count("another watch publishes service id a") == 1
    assert newer.reconcile(UP)
    older.withdraw()
    assert said(store)["state"] == "up"
    newer.withdraw()
    assert older.reconcile(DOWN)  # the way is free again


def test_a_write_by_others_in_between_is_not_ours(store: SqliteStore) -> None:
    """A watch would believe that its state is stored while it is not."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)

    def meddle(name: str) -> None:
        if name == "create":
            flaky.on_call = lambda name: None
            store.create("es/hosts/a", "{}", 30)

    flaky.on_call = meddle
    assert not mine.reconcile(UP)
    assert mine.reconcile(UP)

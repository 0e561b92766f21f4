"""One service's state in the store, as it should be."""

from __future__ import annotations

import logging
import time

import pytest

from integration.support.fakes import Clock, FlakyStore
from integration.support.registrations import DOWN, UP, publisher, said
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.health import Health
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now


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


@pytest.mark.parametrize("fault", ["create", "update"])
def test_after_a_lost_reply_the_record_is_still_kept_alive(
    store: SqliteStore, fault: str
) -> None:
    """A healthy node would drop out of `hosts`, and the next one found a cluster."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky, ttl=0.6)
    mine.reconcile(DOWN)
    if fault == "create":
        store.delete(store.list("es/hosts/a").records[0])
    flaky.plan("reply", 1)
    with pytest.raises(StoreUnavailable):
        mine.reconcile(UP)
    assert flaky.calls[1] == fault
    until = now() + 1.5
    while now() < until:
        assert mine.reconcile(UP)
        assert said(store)["state"] == "up"
        time.sleep(0.1)
    time.sleep(0.9)  # by its keepalive alone
    assert said(store)["state"] == "up"
    mine.withdraw()


def test_a_deleted_record_comes_back(store: SqliteStore) -> None:
    """A service would stay invisible after its record lapsed in a store outage."""
    mine = publisher(store)
    mine.reconcile(UP)
    store.delete(store.list("es/hosts/a").records[0])
    assert mine.reconcile(UP)
    assert said(store)["state"] == "up"


def test_the_record_is_kept_alive_and_withdrawn(store: SqliteStore) -> None:
    """A healthy service would vanish, or a stopped one stay."""
    mine = publisher(store, ttl=0.5)
    mine.reconcile(UP)
    time.sleep(0.9)
    assert said(store)["state"] == "up"
    mine.withdraw()
    assert store.list("").records == ()
    time.sleep(0.4)
    assert store.list("").records == ()


def test_a_restarted_watch_takes_its_old_record_over(store: SqliteStore) -> None:
    """After kill -9 the new watch would have to wait for the old record to lapse."""
    publisher(store, ttl=5).reconcile(UP)
    fresh = publisher(store, ttl=0.5)
    assert fresh.reconcile(DOWN)
    assert said(store)["state"] == "down"
    time.sleep(0.9)
    assert said(store)["state"] == "down"  # kept alive by the new one
    fresh.withdraw()
    assert store.list("").records == ()


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

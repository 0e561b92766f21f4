"""The keepalive beside its owner's work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from integration.support.commands import HANG, wait_until
from integration.support.pauses import undisturbed
from service_monitor.errors import Conflict, RecordGone, Stopped, StoreUnavailable
from service_monitor.recipes.session import Session
from service_monitor.records import Record
from service_monitor.timing import now

RECORD = Record("k", "v", 1, 1)
TTL = 0.3
PAUSE = 0.05
"""Seconds that may pass between what is due and what is done."""


class Store:
    """Counts renewals; `outcome` decides what each one does."""

    def __init__(
        self, outcome: Callable[[int], Record | None] = lambda n: None
    ) -> None:
        self.renewals: list[float] = []
        self.threads: set[str] = set()
        self._outcome = outcome

    def keep_alive(self, record: Record, ttl: float) -> Record:
        self.renewals.append(now())
        self.threads.add(threading.current_thread().name)
        return self._outcome(len(self.renewals)) or record

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        return Record(record.key, value, record.created, record.version + 1)


def session(store: Store, **settings: Any) -> Session:
    return Session(store, RECORD, TTL, **settings)  # type: ignore[arg-type]


def test_it_renews_every_third_of_the_ttl() -> None:
    """One lost keepalive would cost the record."""
    store = Store()
    begun = now()
    kept = session(store)
    wait_until(lambda: len(store.renewals) >= 4)
    kept.end()
    assert store.renewals[3] - begun >= 4 * TTL / 3


def test_after_the_end_nothing_is_renewed() -> None:
    """A deregistered service would be kept alive by a thread left behind."""
    store = Store()
    kept = session(store)
    kept.end()
    time.sleep(0.25)
    assert store.renewals == []


def test_who_has_stalled_is_not_kept_alive() -> None:
    """A hung watch would vouch for a dead service."""
    store = Store()
    vouched, asked = [True], list[bool]()

    def vouch() -> bool:
        asked.append(vouched[0])
        return asked[-1]

    kept = session(store, vouch=vouch)
    wait_until(lambda: bool(store.renewals))
    vouched[0] = False
    wait_until(lambda: not all(asked))  # no renewal is under way any more
    before = len(store.renewals)
    wait_until(lambda: asked.count(False) >= 4)
    assert len(store.renewals) == before
    vouched[0] = True
    wait_until(lambda: len(store.renewals) > before)
    kept.end()


@undisturbed(PAUSE)
def test_a_failed_renewal_is_hurried_after() -> None:
    """A short outage would cost the record although time was left."""

    def outcome(turn: int) -> None:
        if turn < 3:
            raise StoreUnavailable("away")

    store = Store(outcome)
    kept = Session(store, RECORD, 3.0)  # type: ignore[arg-type]
    wait_until(lambda: len(store.renewals) >= 2)
    kept.end()
    assert store.renewals[1] - store.renewals[0] < 0.9  # where a third is 1 s


@pytest.mark.parametrize("error", [RecordGone("k"), Conflict(RECORD)])
def test_a_lost_record_ends_it(error: Exception) -> None:
    """The owner would believe in a record that nobody renews."""

    def outcome(turn: int) -> None:
        raise error

    store = Store(outcome)
    kept = session(store)
    assert kept.keeps(RECORD)
    wait_until(lambda: not kept.keeps(RECORD))
    time.sleep(0.3)
    assert len(store.renewals) == 1


def test_a_stop_that_was_obeyed_does_not_end_it() -> None:
    """The lease would lapse while a command that has to stop takes its time."""

    def outcome(turn: int) -> None:
        if turn == 1:
            raise Stopped("a signal")

    store = Store(outcome)
    kept = session(store)
    wait_until(lambda: len(store.renewals) >= 2)
    assert kept.keeps(RECORD)
    kept.end()


@undisturbed(PAUSE)
def test_it_ends_when_it_was_told_to_at_the_latest() -> None:
    """A node that never comes up would hold up all others, renewal after renewal."""
    store, begun = Store(), now()
    kept = session(store, deadline=begun + TTL, until=begun + 0.65)
    time.sleep(1)
    assert store.renewals[-1] >= begun + 0.65 - TTL  # the last one lives just so long
    assert kept.deadline == begun + 0.65
    assert store.renewals == store.renewals[:4]


def last_ones(outcome: Callable[[int], None], **settings: Any) -> Store:
    """Let a session come to its last renewal, 0.35 s before it has to end."""
    store, begun = Store(outcome), now()
    kept = session(store, deadline=begun + TTL, until=begun + 0.35, **settings)
    time.sleep(0.8)
    kept.end()
    return store


@undisturbed(PAUSE)
def test_a_last_renewal_that_failed_is_tried_again() -> None:
    """One lost message would cost the lease of a node that is nearly up."""

    def outcome(turn: int) -> None:
        if turn == 1:  # the one that is the last
            raise StoreUnavailable("away")

    store = last_ones(outcome)
    assert len(store.renewals) == 2
    assert store.renewals[1] - store.renewals[0] < TTL


@undisturbed(PAUSE)
def test_a_last_renewal_is_tried_only_while_the_record_may_live() -> None:
    """The store would be asked for ever to renew what is gone."""

    def outcome(turn: int) -> None:
        raise StoreUnavailable("away")

    store = last_ones(outcome)
    assert len(store.renewals) > 2
    assert store.renewals[-1] - store.renewals[0] < TTL + 0.1


@undisturbed(PAUSE)
def test_a_last_renewal_waits_for_who_has_stalled() -> None:
    """A probe that hangs for a moment would cost the lease."""
    vouched = iter([False, False])
    store = last_ones(lambda turn: None, vouch=lambda: next(vouched, True))
    assert len(store.renewals) == 1


def test_it_tells_why_it_was_not_renewed() -> None:
    """The log could not say whether the store or this process was to blame."""
    store = Store(lambda turn: None)
    kept = session(store, vouch=lambda: False)
    wait_until(lambda: "stalled" in kept.trouble)
    kept.end()
    assert store.renewals == []


@undisturbed(PAUSE)
def test_its_deadline_is_counted_from_before_the_renewal() -> None:
    """A holder that is cut off would go on after the store gave its lease away."""
    begun = now()

    def outcome(turn: int) -> None:
        time.sleep(0.2)
        if turn > 1:
            raise StoreUnavailable("cut off")

    store = Store(outcome)
    kept = session(store, deadline=begun + TTL)
    wait_until(lambda: len(store.renewals) >= 2)
    kept.end()
    assert begun + TTL < kept.deadline < store.renewals[0] + TTL + 0.1


def test_another_life_of_the_record_is_not_ours() -> None:
    """After a lost reply the thread would renew what is no longer there."""
    kept = session(Store())
    assert not kept.keeps(Record("k", "v", 2, 2))
    assert not kept.keeps(Record("k", "v", 1, 1, handle=7))
    kept.end()


def test_a_write_with_another_ttl_ends_it() -> None:
    """A lease would be renewed as if it were still a waiting ticket."""
    store = Store()
    kept = session(store)
    kept.update(RECORD, "held", 240)
    time.sleep(0.25)
    assert store.renewals == []


def test_an_update_never_runs_beside_a_renewal() -> None:
    """etcd v2's renewal changes the version, so the update would be refused."""
    inside = threading.Event()
    leave = threading.Event()

    def outcome(turn: int) -> Record:
        inside.set()
        leave.wait(HANG)
        return Record("k", "v", 1, 7)

    kept = session(Store(outcome))
    assert inside.wait(HANG)
    updated: list[Record] = []
    thread = threading.Thread(target=lambda: updated.append(kept.update(RECORD, "w")))
    thread.start()
    time.sleep(0.1)
    assert updated == []
    leave.set()
    wait_until(lambda: bool(updated))
    kept.end()
    assert updated[0].value == "w"


def test_a_wrong_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a store would silently end the keepalive."""
    seen: list[BaseException | None] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda args: seen.append(args.exc_value)
    )

    def outcome(turn: int) -> None:
        raise ZeroDivisionError

    session(Store(outcome))
    wait_until(lambda: bool(seen))
    assert isinstance(seen[0], ZeroDivisionError)

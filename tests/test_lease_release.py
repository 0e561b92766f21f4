"""Leaving the queue and releasing the lease: one's own, and nothing newer."""

from __future__ import annotations

import pytest

from integration.support.contenders import Node, tickets
from integration.support.fakes import Clock, FlakyStore
from service_monitor.errors import HeldByAnother, StoreRefused, StoreUnavailable
from service_monitor.recipes.release import release
from service_monitor.stores.sqlite.store import SqliteStore


def test_leaving_takes_back_ticket_and_lease(memory: SqliteStore, clock: Clock) -> None:
    """SIGTERM would leave a ticket that blocks the queue."""
    holder, waiter = Node(memory, clock, "a"), Node(memory, clock, "b")
    holder.wins()
    waiter.waits()
    waiter.contender.leave()
    assert [t.service_id for t in tickets(memory)] == ["a"]
    holder.contender.leave()
    assert tickets(memory) == []
    assert waiter.sessions[0].ended
    Node(memory, clock, "c").contender.leave()


def test_leaving_before_anything_was_written_asks_for_nothing(
    memory: SqliteStore, clock: Clock
) -> None:
    """A dead store would be told of twice, the second time about a ticket."""
    node = Node(memory, clock, "a")
    node.flaky.plan("request")
    with pytest.raises(StoreUnavailable):
        node.step()
    node.contender.leave()
    assert node.flaky.calls == ["list"]


def test_leaving_after_a_refused_ticket_asks_for_nothing(
    memory: SqliteStore, clock: Clock
) -> None:
    """A refusal would be logged twice, the second time about a ticket."""
    node = Node(memory, clock, "a")

    def refuse(name: str) -> None:
        if name == "create":
            raise StoreRefused("no right to write")

    node.flaky.on_call = refuse
    with pytest.raises(StoreRefused):
        node.step()
    node.contender.leave()
    assert node.flaky.calls == ["list"]


def test_a_refusal_after_a_lost_reply_still_takes_the_ticket_back(
    memory: SqliteStore, clock: Clock
) -> None:
    """A ticket would stay behind and block the queue, as it was thought unwritten."""
    node = Node(memory, clock, "a")
    node.flaky.plan("reply", 1)
    with pytest.raises(StoreUnavailable):
        node.step()
    assert len(tickets(memory)) == 1

    def refuse(name: str) -> None:
        if name == "update":
            raise StoreRefused("no right to write")

    node.flaky.on_call = refuse
    with pytest.raises(StoreRefused):
        node.step()
    node.contender.leave()
    assert tickets(memory) == []


def test_leaving_spares_the_ticket_of_another_process(
    memory: SqliteStore, clock: Clock
) -> None:
    """The process that was replaced would take its successor's lease away."""
    old, new = Node(memory, clock, "a"), Node(memory, clock, "a")
    old.wins()
    new.wins()
    old.contender.leave()
    assert [t.state for t in tickets(memory)] == ["held"]


def test_release_gives_the_lease_back_once(memory: SqliteStore, clock: Clock) -> None:
    """ExecStopPost could not free the lease of a failed start."""
    Node(memory, clock, "a").wins()
    assert release(memory, "ES", "a") is True
    assert release(memory, "es", "a") is False


def test_release_by_token_spares_a_newer_start(
    memory: SqliteStore, clock: Clock
) -> None:
    """A late clean-up would free the lease of the start that came after it."""
    old = Node(memory, clock, "a").wins()
    new = Node(memory, clock, "a").wins()
    with pytest.raises(HeldByAnother, match=str(new.token)):
        release(memory, "es", "a", old.token)
    assert release(memory, "es", "a", new.token)
    newest = Node(memory, clock, "a").wins()
    assert release(memory, "es", "a", newest.token - 1, force=True)


def test_release_never_frees_an_acquisition_made_meanwhile(
    memory: SqliteStore, clock: Clock
) -> None:
    """ExecStopPost of the old start would free the lease of the new one."""
    Node(memory, clock, "a").wins()
    flaky = FlakyStore(memory, clock)

    def meddle(name: str) -> None:
        if name == "delete":
            flaky.on_call = lambda name: None
            Node(memory, clock, "a").wins()

    flaky.on_call = meddle
    with pytest.raises(HeldByAnother, match="anew meanwhile"):
        release(flaky, "es", "a")
    assert len(tickets(memory)) == 1


def test_release_spares_a_waiter_unless_forced(
    memory: SqliteStore, clock: Clock
) -> None:
    """Releasing by hand would push a living waiter out of the queue."""
    Node(memory, clock, "x").wins()
    Node(memory, clock, "a").waits()
    assert release(memory, "es", "a") is False
    assert release(memory, "es", "a", force=True) is True
    assert [t.service_id for t in tickets(memory)] == ["x"]

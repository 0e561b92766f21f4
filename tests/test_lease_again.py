"""A service id that asks again: as holder, as waiter, or beside its other self."""

from __future__ import annotations

import pytest

from integration.support.contenders import Node, tickets
from integration.support.fakes import Clock
from service_monitor.errors import Replaced, StoreUnavailable
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.stores.sqlite.store import SqliteStore


@pytest.mark.promise(4)
def test_asking_again_while_holding_gets_it_at_once(
    memory: SqliteStore, clock: Clock
) -> None:
    """A restarted node would wait for itself until its own lease ends."""
    first = Node(memory, clock, "a").wins()
    clock.advance(30)
    again = Node(memory, clock, "a").wins()
    assert again.token > first.token
    assert again.deadline == clock() + 60
    assert len(tickets(memory)) == 1


@pytest.mark.promise(4)
def test_asking_again_is_no_longer_life_while_others_wait(
    memory: SqliteStore, clock: Clock
) -> None:
    """A crash-looping node would starve all the others."""
    first = Node(memory, clock, "a").wins()
    Node(memory, clock, "b").waits()
    clock.advance(10)
    again = Node(memory, clock, "a").wins()
    assert again.token > first.token
    assert again.deadline <= first.deadline
    assert memory.time_left(again.record) == pytest.approx(50)


@pytest.mark.promise(4)
def test_a_lost_reply_to_asking_again_does_not_lengthen_it(
    memory: SqliteStore, clock: Clock
) -> None:
    """The holder would believe in more seconds than the store gives it."""
    first = Node(memory, clock, "a").wins()
    Node(memory, clock, "b").waits()
    clock.advance(10)
    again = Node(memory, clock, "a")
    again.flaky.plan("reply", 1)
    with pytest.raises(StoreUnavailable):
        again.step()
    assert again.wins().deadline <= first.deadline


def test_a_restarted_waiter_keeps_its_place(memory: SqliteStore, clock: Clock) -> None:
    """A waiter killed and started again would go to the end of the queue."""
    lease = Node(memory, clock, "x").wins()
    Node(memory, clock, "a").waits()
    Node(memory, clock, "b").waits()
    assert Node(memory, clock, "a").waits().position == 1
    memory.delete(lease.record)


def test_the_replaced_process_ends(memory: SqliteStore, clock: Clock) -> None:
    """Two processes of one service id would fight over their ticket for ever."""
    Node(memory, clock, "x").wins()
    old, new = Node(memory, clock, "a"), Node(memory, clock, "a")
    old.waits()
    new.waits()
    with pytest.raises(Replaced, match="host-a"):
        old.step()
    old.contender.leave()
    assert new.waits().position == 1


def test_a_holder_that_stays_queues_anew_while_others_wait(
    memory: SqliteStore,
) -> None:
    """What a killed `run` has left of its lease would end while the next one boots."""
    mine = Request("es", "a", "h", stays=True)
    first = Contender(memory, mine).step()
    assert isinstance(first, Lease)
    assert first.deadline < first.until
    alone = Contender(memory, mine).step()
    assert isinstance(alone, Lease)
    other = Contender(memory, Request("es", "b", "h"))
    assert isinstance(other.step(), Waiting)
    again = Contender(memory, mine)
    assert isinstance(again.step(), Waiting)
    assert isinstance(other.step(), Lease)
    again.leave()

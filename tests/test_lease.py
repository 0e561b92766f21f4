"""The queue for the lease: order, slots, deadlines, messages that get lost."""

from __future__ import annotations

import logging

import pytest

from integration.support.contenders import Node, tickets
from integration.support.fakes import Clock
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.lease import HOLDER_TTL
from service_monitor.recipes.timings import TIMINGS
from service_monitor.stores.sqlite.store import SqliteStore


def test_the_first_takes_the_lease_and_the_second_waits(
    memory: SqliteStore, clock: Clock
) -> None:
    """Two nodes would start at once."""
    first, second = Node(memory, clock, "a"), Node(memory, clock, "b")
    lease = first.wins()
    waiting = second.waits()
    assert waiting.position == 1
    assert waiting.obstacle == "es/lease/a"
    memory.delete(lease.record)
    assert second.wins().token > lease.token


@pytest.mark.promise(2)
def test_grants_follow_the_order_of_tickets(memory: SqliteStore, clock: Clock) -> None:
    """A node that came later would overtake."""
    holder = Node(memory, clock, "x")
    lease = holder.wins()
    waiters = [Node(memory, clock, name) for name in "cab"]
    assert [waiter.waits().position for waiter in waiters] == [1, 2, 3]
    for expected in waiters:
        memory.delete(lease.record)
        for other in reversed(waiters[waiters.index(expected) + 1 :]):
            assert other.waits()
        lease = expected.wins()


@pytest.mark.promise(2)
def test_each_waiter_waits_for_its_predecessor_alone(
    memory: SqliteStore, clock: Clock
) -> None:
    """One hand-over would wake the whole queue."""
    Node(memory, clock, "x").wins()
    obstacles = [Node(memory, clock, name).waits() for name in "abc"]
    assert [w.obstacle for w in obstacles] == [
        "es/lease/x",
        "es/lease/a",
        "es/lease/b",
    ]
    later = TIMINGS.look_later
    assert [w.look_within for w in obstacles] == [TIMINGS.look_next, later, later]
    assert all(w.gone for w in obstacles)  # a keepalive or a grant wakes nobody


@pytest.mark.promise(1)
def test_slots_let_so_many_start(memory: SqliteStore, clock: Clock) -> None:
    """--slots would be parsed and ignored."""
    nodes = [Node(memory, clock, name, slots=2) for name in "abcd"]
    leases = [nodes[0].wins(), nodes[1].wins()]
    next_one, after_it = nodes[2].waits(), nodes[3].waits()
    assert (next_one.obstacle, next_one.gone) == ("es/lease/", True)
    # c may go, but also be granted, and then d is the next.
    assert (after_it.obstacle, after_it.gone) == ("es/lease/c", False)
    memory.delete(leases[1].record)
    assert nodes[3].waits().position == 2
    nodes[2].wins()
    assert nodes[3].waits().position == 1


def test_as_many_look_often_as_there_are_slots(
    memory: SqliteStore, clock: Clock
) -> None:
    """A free slot would stay unused for 5 s behind a waiter that is paused."""
    nodes = [Node(memory, clock, name, slots=2) for name in "abcde"]
    for holder in nodes[:2]:
        holder.wins()
    waiters = [waiter.waits().look_within for waiter in nodes[2:]]
    assert waiters == [TIMINGS.look_next] * 2 + [TIMINGS.look_later]


def test_the_smallest_slots_count_with_a_warning(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One node's wrong --slots would slow all others down, or let them in, unseen."""
    Node(memory, clock, "a", slots=2).wins()
    assert not caplog.messages
    assert Node(memory, clock, "b", slots=3).wins()  # warned although granted at once
    assert "--slots differ, the smallest counts: a 2, b 3" in caplog.text
    last = Node(memory, clock, "c", slots=3)
    last.waits()
    last.waits()
    assert caplog.text.count("c 3") == 1


@pytest.mark.promise(1)
def test_the_deadline_counts_from_before_the_request(
    memory: SqliteStore, clock: Clock
) -> None:
    """The holder would go on after the store gave its lease away."""
    node = Node(memory, clock, "a")
    node.flaky.before, node.flaky.after = 1.0, 5.0
    lease = node.wins()
    stored = memory.time_left(lease.record)
    assert lease.deadline <= clock() + stored
    assert lease.deadline == pytest.approx(clock() + 60 - 6.0)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("fault", ["request", "reply"])
def test_any_lost_message_is_survived(
    memory: SqliteStore, clock: Clock, fault: str, at: int
) -> None:
    """A network hiccup would cost the place or leave a lease that nobody knows of."""
    node = Node(memory, clock, "a")
    node.flaky.plan(fault, at)
    started = clock()
    try:
        lease = node.wins()
    except StoreUnavailable:
        clock.advance(2)
        lease = node.wins()
    assert [t.state for t in tickets(memory)] == ["held"]
    assert lease.deadline <= clock() + memory.time_left(lease.record)
    assert lease.deadline >= started + 60
    node.contender.leave()
    assert tickets(memory) == []


def test_a_delayed_reply_counts_from_the_first_try(
    memory: SqliteStore, clock: Clock
) -> None:
    """A lease learned of late would be believed in for too long."""
    node = Node(memory, clock, "a")
    Node(memory, clock, "x").contender.leave()
    node.flaky.plan("reply", 3)  # list, create, list, update
    with pytest.raises(StoreUnavailable):
        node.step()
    assert node.flaky.calls[-1] == "update"
    begun = clock()
    clock.advance(20)
    assert node.wins().deadline == begun + 60


def test_a_lease_that_ended_in_an_outage_is_queued_for_again(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The node would look at its own dead lease at full speed, and block the others."""
    node, other = Node(memory, clock, "a"), Node(memory, clock, "b")
    node.flaky.plan("reply", 3)
    with pytest.raises(StoreUnavailable):
        node.step()
    other.waits()
    for _ in range(5):
        clock.advance(11.9)
        node.sessions[0].renew()  # of a ticket that has become the lease: must not help
        other.sessions[0].renew()
    clock.advance(1)
    assert other.wins()
    assert node.waits().position == 1


def test_a_lease_about_to_end_is_given_back_and_queued_for_again(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A node would start on a lease that is over before it has begun."""
    node = Node(memory, clock, "a", lease_timeout=5.0)
    slow = iter([5.0])

    def late(name: str) -> None:
        if name == "update":
            node.flaky.after = next(slow, 0.0)

    node.flaky.on_call = late
    lease = node.wins()
    assert lease.deadline > clock()
    assert caplog.text.count("expired before it could be used") == 1
    assert "cut off for more than --lease-timeout 5 s?)" in caplog.text
    assert len(tickets(memory)) == 1


def test_a_lease_that_could_not_be_given_back_spoils_no_other(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The next lease of a `run` would not be renewed, and end while it boots."""
    node = Node(memory, clock, "a", lease_timeout=240.0, stays=True)
    slow, away = iter([HOLDER_TTL]), iter([True])

    def fault(name: str) -> None:
        node.flaky.after = next(slow, 0.0) if name == "update" else 0.0
        if name == "list" and node.flaky.calls.count("update") and next(away, False):
            raise StoreUnavailable("away")

    node.flaky.on_call = fault
    with pytest.raises(StoreUnavailable):
        node.step()
    begun = clock()
    lease = node.wins()
    assert lease.deadline == begun + HOLDER_TTL
    assert lease.until == begun + 240
    assert "cut off for more than 30 s?)" in caplog.text


def test_a_lapsed_waiter_queues_again_at_the_end(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A paused waiter would be granted on a ticket that had expired."""
    Node(memory, clock, "x", lease_timeout=600).wins()
    paused, other = Node(memory, clock, "a"), Node(memory, clock, "b")
    paused.waits()
    other.waits()
    for _ in range(4):
        clock.advance(TIMINGS.waiter_ttl / 3)
        other.sessions[0].renew()
    with caplog.at_level(logging.WARNING):
        assert paused.waits().position == 2
    assert "our ticket expired" in caplog.text
    assert paused.sessions[0].ended


@pytest.mark.promise(1)
def test_a_ticket_that_lapses_between_look_and_write_is_not_granted(
    memory: SqliteStore, clock: Clock
) -> None:
    """The second in line would start beside the one whose ticket had expired."""
    lease = Node(memory, clock, "x").wins()
    paused, other = Node(memory, clock, "a"), Node(memory, clock, "b")
    paused.waits()
    memory.delete(lease.record)

    def late(name: str) -> None:
        if name == "update":
            paused.flaky.on_call = lambda name: None
            clock.advance(TIMINGS.waiter_ttl + 1)
            other.wins()

    paused.flaky.on_call = late
    assert paused.waits().position == 1


def test_what_is_no_ticket_blocks_nobody(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A key written by hand would wedge the queue for ever."""
    memory.create("es/lease/a", "not json", 1000)
    memory.create("es/lease/junk", '{"state": "held"}', 1000)
    assert Node(memory, clock, "a").wins()
    assert "es/lease/junk is not a ticket" in caplog.text


def test_what_is_no_ticket_is_told_once(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a waiting node would hold nothing else."""
    junk = memory.create("es/lease/junk", "not json", 1000)
    Node(memory, clock, "x").wins()
    waiter = Node(memory, clock, "a")
    for _ in range(3):
        waiter.waits()
    assert caplog.text.count("is not a ticket") == 2  # one by each of the two
    memory.delete(junk)
    waiter.waits()
    memory.create("es/lease/junk", "again", 1000)
    waiter.waits()
    assert caplog.text.count("is not a ticket") == 3


def test_a_queue_that_changes_all_the_time_is_trouble_not_a_loop(
    memory: SqliteStore, clock: Clock
) -> None:
    """A fight over a key would spin at full speed without a word."""
    node = Node(memory, clock, "a")

    def meddle(name: str) -> None:
        if name == "update":
            (record,) = memory.list("es/lease/a").records
            memory.update(record, record.value, None)

    node.flaky.on_call = meddle
    with pytest.raises(StoreUnavailable, match="changes between"):
        node.step()

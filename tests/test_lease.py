"""The lease recipe, step by step, on a clock that stands still."""

from __future__ import annotations

import logging

import pytest

from integration.support.fakes import Clock, FlakyStore, StillSession, memory_store
from service_monitor.errors import (
    HeldByAnother,
    Replaced,
    StoreUnavailable,
)
from service_monitor.recipes.lease import (
    HOLDER_TTL,
    LOOK_LATER,
    LOOK_NEXT,
    WAITER_TTL,
    Contender,
    Lease,
    Request,
    Waiting,
    release,
)
from service_monitor.records import Ticket
from service_monitor.stores.sqlite.store import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SqliteStore:
    return memory_store(clock)


class Node:
    """A contender with handles on what lies inside it."""

    def __init__(
        self, store: SqliteStore, clock: Clock, name: str, **request: float
    ) -> None:
        self.sessions: list[StillSession] = []
        self.flaky = FlakyStore(store, clock)
        settings = {"lease_timeout": 60.0, "slots": 1} | request
        self.request = Request("ES", name, f"host-{name}", **settings)  # type: ignore[arg-type]
        self.contender = Contender(
            self.flaky,
            self.request,
            clock,
            self._session,  # type: ignore[arg-type]
        )

    def _session(self, *args: object) -> StillSession:
        self.sessions.append(StillSession(*args))  # type: ignore[arg-type]
        return self.sessions[-1]

    def step(self) -> Lease | Waiting:
        return self.contender.step()

    def wins(self) -> Lease:
        outcome = self.step()
        assert isinstance(outcome, Lease)
        return outcome

    def waits(self) -> Waiting:
        outcome = self.step()
        assert isinstance(outcome, Waiting)
        return outcome


def tickets(store: SqliteStore) -> list[Ticket]:
    found = [Ticket.from_json(r.value) for r in store.list("es/lease/").records]
    return [ticket for ticket in found if ticket]


def test_the_first_takes_the_lease_and_the_second_waits(
    store: SqliteStore, clock: Clock
) -> None:
    """Two nodes would start at once."""
    first, second = Node(store, clock, "a"), Node(store, clock, "b")
    lease = first.wins()
    waiting = second.waits()
    assert waiting.position == 1
    assert waiting.obstacle == "es/lease/a"
    store.delete(lease.record)
    assert second.wins().token > lease.token


@pytest.mark.promise(2)
def test_grants_follow_the_order_of_tickets(store: SqliteStore, clock: Clock) -> None:
    """A node that came later would overtake."""
    holder = Node(store, clock, "x")
    lease = holder.wins()
    waiters = [Node(store, clock, name) for name in "cab"]
    assert [waiter.waits().position for waiter in waiters] == [1, 2, 3]
    for expected in waiters:
        store.delete(lease.record)
        for other in reversed(waiters[waiters.index(expected) + 1 :]):
            assert other.waits()
        lease = expected.wins()


@pytest.mark.promise(2)
def test_each_waiter_waits_for_its_predecessor_alone(
    store: SqliteStore, clock: Clock
) -> None:
    """One hand-over would wake the whole queue."""
    Node(store, clock, "x").wins()
    obstacles = [Node(store, clock, name).waits() for name in "abc"]
    assert [w.obstacle for w in obstacles] == [
        "es/lease/x",
        "es/lease/a",
        "es/lease/b",
    ]
    assert [w.patience for w in obstacles] == [LOOK_NEXT, LOOK_LATER, LOOK_LATER]
    assert all(w.gone for w in obstacles)  # a keepalive or a grant wakes nobody


@pytest.mark.promise(1)
def test_slots_let_so_many_start(store: SqliteStore, clock: Clock) -> None:
    """--slots would be parsed and ignored."""
    nodes = [Node(store, clock, name, slots=2) for name in "abcd"]
    leases = [nodes[0].wins(), nodes[1].wins()]
    next_one, after_it = nodes[2].waits(), nodes[3].waits()
    assert (next_one.obstacle, next_one.gone) == ("es/lease/", True)
    # c may go, but also be granted, and then d is the next.
    assert (after_it.obstacle, after_it.gone) == ("es/lease/c", False)
    store.delete(leases[1].record)
    assert nodes[3].waits().position == 2
    nodes[2].wins()
    assert nodes[3].waits().position == 1


def test_as_many_look_often_as_there_are_slots(
    store: SqliteStore, clock: Clock
) -> None:
    """A free slot would stay unused for 5 s behind a waiter that is paused."""
    nodes = [Node(store, clock, name, slots=2) for name in "abcde"]
    for holder in nodes[:2]:
        holder.wins()
    waiters = [waiter.waits().patience for waiter in nodes[2:]]
    assert waiters == [LOOK_NEXT, LOOK_NEXT, LOOK_LATER]


def test_the_smallest_slots_count_with_a_warning(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One node's wrong --slots would slow all others down, or let them in, unseen."""
    Node(store, clock, "a", slots=2).wins()
    assert not caplog.messages
    assert Node(store, clock, "b", slots=3).wins()  # warned although granted at once
    assert "--slots differ, the smallest counts: a 2, b 3" in caplog.text
    last = Node(store, clock, "c", slots=3)
    last.waits()
    last.waits()
    assert caplog.text.count("c 3") == 1


@pytest.mark.promise(1)
def test_the_deadline_counts_from_before_the_request(
    store: SqliteStore, clock: Clock
) -> None:
    """The holder would go on after the store gave its lease away."""
    node = Node(store, clock, "a")
    node.flaky.before, node.flaky.after = 1.0, 5.0
    lease = node.wins()
    stored = store.time_left(lease.record)
    assert lease.deadline <= clock() + stored
    assert lease.deadline == pytest.approx(clock() + 60 - 6.0)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("fault", ["request", "reply"])
def test_any_lost_message_is_survived(
    store: SqliteStore, clock: Clock, fault: str, at: int
) -> None:
    """A network hiccup would cost the place or leave a lease that nobody knows of."""
    node = Node(store, clock, "a")
    node.flaky.plan(fault, at)
    started = clock()
    try:
        lease = node.wins()
    except StoreUnavailable:
        clock.advance(2)
        lease = node.wins()
    assert [t.state for t in tickets(store)] == ["held"]
    assert lease.deadline <= clock() + store.time_left(lease.record)
    assert lease.deadline >= started + 60
    node.contender.leave()
    assert tickets(store) == []


def test_a_delayed_reply_counts_from_the_first_try(
    store: SqliteStore, clock: Clock
) -> None:
    """A lease learned of late would be believed in for too long."""
    node = Node(store, clock, "a")
    Node(store, clock, "x").contender.leave()
    node.flaky.plan("reply", 3)  # list, create, list, update
    with pytest.raises(StoreUnavailable):
        node.step()
    assert node.flaky.calls[-1] == "update"
    begun = clock()
    clock.advance(20)
    assert node.wins().deadline == begun + 60


def test_a_lease_that_ended_in_an_outage_is_queued_for_again(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The node would look at its own dead lease at full speed, and block the others."""
    node, other = Node(store, clock, "a"), Node(store, clock, "b")
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
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A node would start on a lease that is over before it has begun."""
    node = Node(store, clock, "a", lease_timeout=5.0)
    slow = iter([5.0])

    def late(name: str) -> None:
        if name == "update":
            node.flaky.after = next(slow, 0.0)

    node.flaky.on_call = late
    lease = node.wins()
    assert lease.deadline > clock()
    assert caplog.text.count("expired before it could be used") == 1
    assert "cut off for more than --lease-timeout 5 s?)" in caplog.text
    assert len(tickets(store)) == 1


def test_a_lease_that_could_not_be_given_back_spoils_no_other(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The next lease of a `run` would not be renewed, and end while it boots."""
    node = Node(store, clock, "a", lease_timeout=240.0, stays=True)
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


@pytest.mark.promise(4)
def test_asking_again_while_holding_gets_it_at_once(
    store: SqliteStore, clock: Clock
) -> None:
    """A restarted node would wait for itself until its own lease ends."""
    first = Node(store, clock, "a").wins()
    clock.advance(30)
    again = Node(store, clock, "a").wins()
    assert again.token > first.token
    assert again.deadline == clock() + 60
    assert len(tickets(store)) == 1


@pytest.mark.promise(4)
def test_asking_again_is_no_longer_life_while_others_wait(
    store: SqliteStore, clock: Clock
) -> None:
    """A crash-looping node would starve all the others."""
    first = Node(store, clock, "a").wins()
    Node(store, clock, "b").waits()
    clock.advance(10)
    again = Node(store, clock, "a").wins()
    assert again.token > first.token
    assert again.deadline <= first.deadline
    assert store.time_left(again.record) == pytest.approx(50)


@pytest.mark.promise(4)
def test_a_lost_reply_to_asking_again_does_not_lengthen_it(
    store: SqliteStore, clock: Clock
) -> None:
    """The holder would believe in more seconds than the store gives it."""
    first = Node(store, clock, "a").wins()
    Node(store, clock, "b").waits()
    clock.advance(10)
    again = Node(store, clock, "a")
    again.flaky.plan("reply", 1)
    with pytest.raises(StoreUnavailable):
        again.step()
    assert again.wins().deadline <= first.deadline


def test_a_restarted_waiter_keeps_its_place(store: SqliteStore, clock: Clock) -> None:
    """A waiter killed and started again would go to the end of the queue."""
    lease = Node(store, clock, "x").wins()
    Node(store, clock, "a").waits()
    Node(store, clock, "b").waits()
    assert Node(store, clock, "a").waits().position == 1
    store.delete(lease.record)


def test_the_replaced_process_ends(store: SqliteStore, clock: Clock) -> None:
    """Two processes of one service id would fight over their ticket for ever."""
    Node(store, clock, "x").wins()
    old, new = Node(store, clock, "a"), Node(store, clock, "a")
    old.waits()
    new.waits()
    with pytest.raises(Replaced, match="host-a"):
        old.step()
    old.contender.leave()
    assert new.waits().position == 1


def test_a_lapsed_waiter_queues_again_at_the_end(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A paused waiter would be granted on a ticket that had expired."""
    Node(store, clock, "x", lease_timeout=600).wins()
    paused, other = Node(store, clock, "a"), Node(store, clock, "b")
    paused.waits()
    other.waits()
    for _ in range(4):
        clock.advance(WAITER_TTL / 3)
        other.sessions[0].renew()
    with caplog.at_level(logging.WARNING):
        assert paused.waits().position == 2
    assert "our ticket expired" in caplog.text
    assert paused.sessions[0].ended


@pytest.mark.promise(1)
def test_a_ticket_that_lapses_between_look_and_write_is_not_granted(
    store: SqliteStore, clock: Clock
) -> None:
    """The second in line would start beside the one whose ticket had expired."""
    lease = Node(store, clock, "x").wins()
    paused, other = Node(store, clock, "a"), Node(store, clock, "b")
    paused.waits()
    store.delete(lease.record)

    def late(name: str) -> None:
        if name == "update":
            paused.flaky.on_call = lambda name: None
            clock.advance(WAITER_TTL + 1)
            other.wins()

    paused.flaky.on_call = late
    assert paused.waits().position == 1


def test_what_is_no_ticket_blocks_nobody(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A key written by hand would wedge the queue for ever."""
    store.create("es/lease/a", "not json", 1000)
    store.create("es/lease/junk", '{"state": "held"}', 1000)
    assert Node(store, clock, "a").wins()
    assert "es/lease/junk is not a ticket" in caplog.text


def test_what_is_no_ticket_is_told_once(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a waiting node would hold nothing else."""
    junk = store.create("es/lease/junk", "not json", 1000)
    Node(store, clock, "x").wins()
    waiter = Node(store, clock, "a")
    for _ in range(3):
        waiter.waits()
    assert caplog.text.count("is not a ticket") == 2  # one by each of the two
    store.delete(junk)
    waiter.waits()
    store.create("es/lease/junk", "again", 1000)
    waiter.waits()
    assert caplog.text.count("is not a ticket") == 3


def test_a_queue_that_changes_all_the_time_is_trouble_not_a_loop(
    store: SqliteStore, clock: Clock
) -> None:
    """A fight over a key would spin at full speed without a word."""
    node = Node(store, clock, "a")

    def meddle(name: str) -> None:
        if name == "update":
            (record,) = store.list("es/lease/a").records
            store.update(record, record.value, None)

    node.flaky.on_call = meddle
    with pytest.raises(StoreUnavailable, match="changes between"):
        node.step()


def test_leaving_takes_back_ticket_and_lease(store: SqliteStore, clock: Clock) -> None:
    """SIGTERM would leave a ticket that blocks the queue."""
    holder, waiter = Node(store, clock, "a"), Node(store, clock, "b")
    holder.wins()
    waiter.waits()
    waiter.contender.leave()
    assert [t.service_id for t in tickets(store)] == ["a"]
    holder.contender.leave()
    assert tickets(store) == []
    assert waiter.sessions[0].ended
    Node(store, clock, "c").contender.leave()


def test_leaving_before_anything_was_written_asks_for_nothing(
    store: SqliteStore, clock: Clock
) -> None:
    """A dead store would be told of twice, the second time about a ticket."""
    node = Node(store, clock, "a")
    node.flaky.plan("request")
    with pytest.raises(StoreUnavailable):
        node.step()
    node.contender.leave()
    assert node.flaky.calls == ["list"]


def test_leaving_spares_the_ticket_of_another_process(
    store: SqliteStore, clock: Clock
) -> None:
    """The process that was replaced would take its successor's lease away."""
    old, new = Node(store, clock, "a"), Node(store, clock, "a")
    old.wins()
    new.wins()
    old.contender.leave()
    assert [t.state for t in tickets(store)] == ["held"]


def test_release_gives_the_lease_back_once(store: SqliteStore, clock: Clock) -> None:
    """ExecStopPost could not free the lease of a failed start."""
    Node(store, clock, "a").wins()
    assert release(store, "ES", "a") is True
    assert release(store, "es", "a") is False


def test_release_by_token_spares_a_newer_start(
    store: SqliteStore, clock: Clock
) -> None:
    """A late clean-up would free the lease of the start that came after it."""
    old = Node(store, clock, "a").wins()
    new = Node(store, clock, "a").wins()
    with pytest.raises(HeldByAnother, match=str(new.token)):
        release(store, "es", "a", old.token)
    assert release(store, "es", "a", new.token)
    newest = Node(store, clock, "a").wins()
    assert release(store, "es", "a", newest.token - 1, force=True)


def test_release_never_frees_an_acquisition_made_meanwhile(
    store: SqliteStore, clock: Clock
) -> None:
    """ExecStopPost of the old start would free the lease of the new one."""
    Node(store, clock, "a").wins()
    flaky = FlakyStore(store, clock)

    def meddle(name: str) -> None:
        if name == "delete":
            flaky.on_call = lambda name: None
            Node(store, clock, "a").wins()

    flaky.on_call = meddle
    with pytest.raises(HeldByAnother, match="anew meanwhile"):
        release(flaky, "es", "a")
    assert len(tickets(store)) == 1


def test_release_spares_a_waiter_unless_forced(
    store: SqliteStore, clock: Clock
) -> None:
    """Releasing by hand would push a living waiter out of the queue."""
    Node(store, clock, "x").wins()
    Node(store, clock, "a").waits()
    assert release(store, "es", "a") is False
    assert release(store, "es", "a", force=True) is True
    assert [t.service_id for t in tickets(store)] == ["x"]


def test_a_holder_that_stays_queues_anew_while_others_wait(
    store: SqliteStore,
) -> None:
    """What a killed `run` has left of its lease would end while the next one boots."""
    mine = Request("es", "a", "h", stays=True)
    first = Contender(store, mine).step()
    assert isinstance(first, Lease)
    assert first.deadline < first.until
    alone = Contender(store, mine).step()
    assert isinstance(alone, Lease)
    other = Contender(store, Request("es", "b", "h"))
    assert isinstance(other.step(), Waiting)
    again = Contender(store, mine)
    assert isinstance(again.step(), Waiting)
    assert isinstance(other.step(), Lease)
    again.leave()

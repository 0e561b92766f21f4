"""Random delays, crashes, pauses and lost messages against the promises of the lease.

The recipe and the store are the real ones; the clock and the messages are ours. A few
mutants prove that the machine can see a broken promise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from integration.support.fakes import Clock, FlakyStore, StillSession, memory_store
from service_monitor.errors import Conflict, Replaced, StoreUnavailable
from service_monitor.recipes import contender
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.queue import read_queue
from service_monitor.recipes.release import release
from service_monitor.recipes.ticket import TicketLife
from service_monitor.recipes.timings import TIMINGS
from service_monitor.records import Record, nonce_of

LEASE = 20.0
WAITER_TTL = TIMINGS.waiter_ttl
NAMES = st.sampled_from("abcd")
FAULTS = st.sampled_from([None, None, "request", "reply"])
DELAYS = st.sampled_from([0.0, 0.0, 0.5, 3.0, 6.0, WAITER_TTL + 0.1, LEASE + 1])
SECONDS = st.sampled_from([0.5, 5.0, WAITER_TTL + 0.1, LEASE - 1, LEASE - 1, LEASE])


class Node:
    """One process: while it lives it believes what it was told."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.paused = False
        self.lease: Lease | None = None
        self.session: StillSession | None = None
        self.store = FlakyStore(machine.store, machine.clock)
        request = Request("es", name, "h", LEASE, machine.slots)
        self.contender = Contender(
            self.store,
            request,
            machine.clock,
            self.keep_alive,  # type: ignore[arg-type]
        )

    def keep_alive(self, store: FlakyStore, record: Record, ttl: float) -> StillSession:
        self.session = StillSession(store, record, ttl)
        return self.session

    def believes(self, time: float) -> bool:
        return self.lease is not None and time < self.lease.deadline


class Machine(RuleBasedStateMachine):
    """Four service ids and whatever can happen to them."""

    @initialize(slots=st.integers(1, 2))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.clock = Clock()
        self.store = memory_store(self.clock)
        self.nodes = {name: Node(self, name) for name in "abcd"}

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        """Start, or start again after a crash; an earlier process is no more."""
        self.nodes[name] = Node(self, name)

    @rule(name=NAMES, fault=FAULTS, at=st.integers(0, 4), before=DELAYS, after=DELAYS)
    def step(
        self, name: str, fault: str | None, at: int, before: float, after: float
    ) -> None:
        node = self.nodes.get(name)
        if node is None or node.paused or node.lease is not None:
            return
        node.store.plan(fault, at)
        node.store.before, node.store.after = before, after
        ahead = self.waiting_ahead_of(name)
        with suppress(StoreUnavailable):
            try:
                outcome = node.contender.step()
            except Replaced:
                del self.nodes[name]
                return
            if isinstance(outcome, Lease):
                node.lease = outcome
                live = {r.key for r in self.store.list("es/lease/").records}
                assert len(ahead & live) < self.slots, "overtaken in the queue"
                renewed = node.session is not None and not node.session.ended
                assert not renewed, "a lease kept alive as if it were a ticket"
        node.store.before = node.store.after = 0.0

    def waiting_ahead_of(self, name: str) -> set[str]:
        queue = read_queue(self.store.list("es/lease/"))
        found = queue.find(f"es/lease/{name}")
        ahead = queue.entries[: found[0]] if found else queue.entries
        return {e.record.key for e in ahead if not e.ticket.held}

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        """Let time pass; whoever is neither paused nor dead is kept alive."""
        while seconds > 0:
            self.clock.advance(min(seconds, WAITER_TTL / 3))
            seconds -= WAITER_TTL / 3
            for node in self.nodes.values():
                if node.session and not node.paused:
                    node.store.plan(None)
                    node.session.renew()

    @rule(name=NAMES)
    def crash(self, name: str) -> None:
        self.nodes.pop(name, None)

    @rule(name=NAMES, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        if name in self.nodes:
            self.nodes[name].paused = paused

    @rule(name=NAMES)
    def is_healthy(self, name: str) -> None:
        """Release as `watch` does; who is paused learns of it afterwards."""
        node = self.nodes.get(name)
        if node and node.lease and not node.paused:
            with suppress(Conflict):
                self.store.delete(node.lease.record)
            del self.nodes[name]

    @rule(name=NAMES, fault=FAULTS, at=st.integers(0, 2))
    def give_up(self, name: str, fault: str | None, at: int) -> None:
        """Leave, whatever failed before; where that fails, too, leave again."""
        node = self.nodes.pop(name, None)
        if node and not node.paused:
            node.store.plan(fault, at)
            with suppress(StoreUnavailable):
                node.contender.leave()
            node.store.plan(None)
            node.contender.leave()
            left = self.store.list(f"es/lease/{name}").records
            ours = [r for r in left if nonce_of(r.value) == node.contender._nonce]
            assert not ours, "something of ours stays behind"

    @rule(name=NAMES, fault=FAULTS, at=st.integers(0, 2))
    def is_too_late(self, name: str, fault: str | None, at: int) -> None:
        """Find the lease of no use any more, as `acquire` may; queue again."""
        node = self.nodes.get(name)
        if node and node.lease and not node.paused:
            node.lease = None
            node.store.plan(fault, at)
            with suppress(StoreUnavailable):
                node.contender.missed()

    @rule(name=NAMES)
    def release_by_hand(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is None or node.lease is None:
            release(self.store, "es", name)

    @rule()
    def settle(self) -> None:
        """With no more faults somebody gets the lease, or nobody wants it."""
        for node in self.nodes.values():
            node.paused = False
        for _ in range(4):
            for name in list(self.nodes):
                self.step(name, None, 0, 0.0, 0.0)
            if not any(n.lease is None for n in self.nodes.values()):
                return
            if any(n.believes(self.clock()) for n in self.nodes.values()):
                return
            self.pass_time(LEASE)
        raise AssertionError("a free slot that nobody takes")

    @invariant()
    def no_more_hold_than_slots(self) -> None:
        """Promise 1, as the store sees it and as the holders do."""
        held = read_queue(self.store.list("es/lease/")).holders
        assert len(held) <= self.slots
        tokens = {entry.record.version for entry in held}
        for name, node in self.nodes.items():
            if node.believes(self.clock()) and node.lease is not None:
                assert node.lease.token in tokens, f"{name} believes in a lease gone"


class NoDeadline(TicketLife):
    """Mutant: a holder that believes in its lease for ever."""

    def _won(self, record: Record, asked: float) -> Lease:
        return Lease(record, float("inf"))


class DeadlineFromReply(TicketLife):
    """Mutant: a holder that counts from when it learned of its lease."""

    def _won(self, record: Record, asked: float) -> Lease:
        return Lease(record, self._clock() + self._request.lease_timeout)


@contextmanager
def untraced() -> Iterator[None]:
    """Let coverage count nothing: it would take as long as the examples themselves."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


@untraced()
def run(examples: int, *, mutant: bool = False) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate] if mutant else list(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)  # 10 s of computing, on a machine that may be busy
@pytest.mark.promise(1)
def test_the_lease_keeps_its_promises() -> None:
    """Two nodes would start at once, in one of the ways that no example thinks of."""
    run(1000)


class LeftBehind(TicketLife):
    """Mutant: a contender that gives up and leaves its ticket to its ttl."""

    def take_back(self) -> None:
        self.stop_renewing()


class StillRenewed(TicketLife):
    """Mutant: a lease that the session of its ticket goes on renewing."""

    def stop_renewing(self) -> None:
        pass


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        (NoDeadline, "lease gone"),
        (DeadlineFromReply, "lease gone"),
        (LeftBehind, "stays behind"),
        (StillRenewed, "kept alive as if"),
    ],
)
def test_the_machine_catches_mutants(
    mutant: type[TicketLife], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above could not fail."""
    monkeypatch.setattr(contender, "TicketLife", mutant)
    with pytest.raises(AssertionError, match=found):
        run(3000, mutant=True)

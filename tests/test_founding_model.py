"""Random starts, crashes and lost messages against the promise of one founder.

The recipes and the store are the real ones; the clock and the messages are ours.
"""

from __future__ import annotations

from contextlib import suppress

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
from service_monitor.errors import Replaced, StoreUnavailable
from service_monitor.node.founded import AskedOnce
from service_monitor.node.probe import Result
from service_monitor.recipes import claim
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.founding import Decision, Picture, decide
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.publisher import Service
from service_monitor.recipes.queue import read_queue
from service_monitor.records import Record, Registration, Snapshot

NAMES = st.sampled_from("abc")
FAULTS = st.sampled_from([None, None, "request", "reply"])
LEASE = 20.0


class Node:
    """One process of a service id."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.lease: Lease | None = None
        self.started = self.up = False
        self.told = False
        self.session: StillSession | None = None
        self.store = FlakyStore(machine.store, machine.clock)
        found = "empty" if name in machine.older else "once"
        request = Request("es", name, "h", LEASE, machine.slots, found=found)  # type: ignore[arg-type]
        self.request = request
        self.founding = Founding(self.store, request)
        self.settled = False
        self.asked = AskedOnce(
            self.store,
            Service("es", name, "h"),
            lambda: Result(self.settled, ""),
        )
        self.contender = Contender(
            self.store,
            request,
            machine.clock,
            self.keep_alive,  # type: ignore[arg-type]
            founding=self.founding,
        )

    def keep_alive(self, store: FlakyStore, record: Record, ttl: float) -> StillSession:
        self.session = StillSession(store, record, ttl)
        return self.session


class Machine(RuleBasedStateMachine):
    """Three service ids and whatever can happen to them."""

    older: frozenset[str] = frozenset()

    @initialize(slots=st.integers(1, 2))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.clock = Clock()
        self.store = memory_store(self.clock)
        self.founders: set[str] = set()
        self.nodes = {name: Node(self, name) for name in "abc"}

    @rule(name=NAMES, fault=FAULTS, at=st.integers(0, 5))
    def step(self, name: str, fault: str | None, at: int) -> None:
        node = self.nodes[name]
        if node.lease is not None:
            return
        node.store.plan(fault, at)
        try:
            outcome = node.contender.step()
            node.lease = outcome if isinstance(outcome, Lease) else None
        except StoreUnavailable:
            pass
        except Replaced:
            self.nodes[name] = Node(self, name)

    @rule(name=NAMES, fault=FAULTS, at=st.integers(0, 4))
    def start(self, name: str, fault: str | None, at: int) -> None:
        """Start COMMAND with the lease, or see that it may not be started."""
        node = self.nodes[name]
        if node.lease is None or node.started:
            return
        if node.lease.deadline <= self.clock():
            self.give_up(name)
            return
        node.store.plan(fault, at)
        with suppress(StoreUnavailable):
            up = ["h"] if self.others_up(name) else []
            role = node.founding.role(up)
            if isinstance(role, str):
                return
            node.started = True
            if role:
                self.founders.add(name)

    @rule(name=NAMES)
    def boot(self, name: str) -> None:
        """Start as quickly as may be."""
        self.step(name, None, 0)
        self.start(name, None, 0)

    @rule(name=NAMES, settled=st.booleans())
    def rise(self, name: str, settled: bool) -> None:
        node = self.nodes[name]
        if not node.started:
            return
        node.settled = settled
        node.store.plan(None)
        node.asked.look()
        key = f"es/hosts/{name}"
        if not node.up:
            for record in self.store.list(key).records:
                self.store.delete(record)
            value = Registration(name, "h", "up", "", "n").to_json()
            self.store.create(key, value, 1e6)
            node.up = True
        node.asked.ask()
        for record in self.store.list(node.request.key).records:
            self.store.delete(record)

    @rule(name=NAMES)
    def crash(self, name: str) -> None:
        """Kill it, and let what it published lapse."""
        for record in self.store.list(f"es/hosts/{name}").records:
            self.store.delete(record)
        self.nodes[name] = Node(self, name)

    @rule(name=NAMES)
    def give_up(self, name: str) -> None:
        node = self.nodes[name]
        if node.started:
            return
        node.store.plan(None)
        node.founding.give_back()
        node.contender.leave()
        self.nodes[name] = Node(self, name)

    @rule(name=NAMES)
    def renew(self, name: str) -> None:
        session = self.nodes[name].session
        if session:
            self.nodes[name].store.plan(None)
            session.renew()

    @rule(seconds=st.sampled_from([0.5, 6.0, 16.0, LEASE]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def others_up(self, name: str) -> bool:
        records = self.store.list("es/hosts/").records
        return any(not each.key.endswith(name) for each in records)

    @invariant()
    def no_more_than_the_slots(self) -> None:
        queue = read_queue(self.store.list("es/lease/"))
        assert len(queue.holders) <= self.slots

    @invariant()
    def one_founder(self) -> None:
        assert len(self.founders - self.older) <= 1


class Mixed(Machine):
    """One of the nodes is of an older release."""

    older = frozenset("b")

    @invariant()
    def one_founder(self) -> None:
        """Founding by it is what --found=empty means."""


def check(machine: type[Machine], examples: int = 300) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_one_service_id_founds_whatever_happens() -> None:
    """Two nodes would each be told to found the cluster."""
    check(Machine)


@pytest.mark.promise(1)
def test_going_ahead_never_makes_more_holders_than_slots() -> None:
    """The founder would start beside a node that had the turn before it."""
    check(Mixed)


def founds_by_whoever_comes(picture: Picture, label: str, name: str) -> Decision:
    done = picture.founder is not None and picture.founder.founded
    return Decision("join" if done else "found", ahead=True)


def keeps_no_claim(self: Founding) -> None:
    for record in self._store.list(self._key).records:
        self._store.delete(record)


@pytest.mark.parametrize("mutant", ["no claim", "given back"])
def test_the_model_sees_a_second_founder(
    monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    """A model that sees nothing would prove nothing."""
    if mutant == "no claim":
        monkeypatch.setattr(claim, "decide", founds_by_whoever_comes)
    else:
        monkeypatch.setattr(Founding, "give_back", keeps_no_claim)
    with pytest.raises(AssertionError):
        check(Machine)


def test_an_unreadable_record_is_waited_for() -> None:
    """Nobody may found where nobody knows whether the cluster was founded."""
    picture = Picture(Record("es/founder", "?", 1, 1))
    assert decide(picture, "es", "a").act == "wait"
    assert decide(Picture(), "es", "a").act == "claim"
    assert decide(Picture(members=("b",)), "es", "a").act == "learn"
    assert Snapshot(()).records == ()

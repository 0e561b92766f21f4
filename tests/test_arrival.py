"""What a start takes back, and whom it believes to be up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from integration.support.fakes import Clock, FlakyStore, memory_store
from service_monitor.errors import Conflict, StoreUnavailable
from service_monitor.recipes import arrival as module
from service_monitor.recipes.arrival import Arrival
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.queue import Queue
from service_monitor.recipes.timings import TIMINGS, USUAL_TTL
from service_monitor.records import Record, Registration
from service_monitor.stores.sqlite.store import SqliteStore

LEASE = Lease(Record("es/lease/a", "", 1, 1), math.inf)
KEY = "es/hosts/a"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "now", clock)
    return clock


@pytest.fixture
def store(clock: Clock) -> SqliteStore:
    return memory_store(clock)


def put(
    store: SqliteStore, name: str, state: Any = "up", ttl: float = USUAL_TTL
) -> Record:
    value = Registration(name, f"host-{name}", state, "200 OK", "n")
    return store.create(f"es/hosts/{name}", value.to_json(), ttl)


def start(store: Any, **settings: Any) -> Arrival:
    asked = {"published": True, **settings}
    arrival = Arrival(store, Request("ES", "a", "host-a", **asked))
    assert arrival.enter(None, Queue(())) is None
    return arrival


def left(store: SqliteStore) -> list[str]:
    return [record.key for record in store.list("es/hosts/").records]


@pytest.mark.promise(6)
def test_an_up_of_an_earlier_life_is_taken_back(store: SqliteStore) -> None:
    """Others would be told to join a node that waits for its turn."""
    put(store, "a")
    start(store)
    assert left(store) == []


def test_what_others_say_is_left_alone(store: SqliteStore) -> None:
    """A start would take its neighbours out of `hosts`."""
    put(store, "b")
    put(store, "a", "down")
    start(store)
    assert left(store) == ["es/hosts/b", KEY]


def test_an_up_that_was_written_anew_meanwhile_stays(store: SqliteStore) -> None:
    """A `watch` beside it would be contradicted by what is older."""
    record = put(store, "a")
    flaky = FlakyStore(store, Clock())

    def meddle(name: str) -> None:
        if name == "delete":
            flaky.on_call = lambda name: None
            store.update(record, record.value, None)

    flaky.on_call = meddle
    arrival = Arrival(flaky, Request("es", "a", "host-a"))
    with pytest.raises(Conflict):
        arrival.enter(None, Queue(()))
    assert left(store) == [KEY]


@pytest.mark.parametrize("fault", ["request", "reply"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_lost_message_is_made_up_for(store: SqliteStore, fault: str, at: int) -> None:
    """A hiccup of the store would leave the ghost, or end the start."""
    put(store, "a")
    flaky = FlakyStore(store, Clock())
    flaky.plan(fault, at)
    arrival = Arrival(flaky, Request("es", "a", "host-a"))
    with pytest.raises(StoreUnavailable):
        arrival.enter(None, Queue(()))
    assert arrival.enter(None, Queue(())) is None
    assert left(store) == []


def test_after_a_clean_end_others_are_believed_at_once(
    store: SqliteStore, clock: Clock
) -> None:
    """Each start would wait for seconds, though nothing is wrong."""
    put(store, "b")
    clock.advance(5)  # as old as what lives may be
    assert start(store).unsure(LEASE) == []


def test_whom_nobody_is_told_of_is_not_waited_for(
    store: SqliteStore, clock: Clock
) -> None:
    """Another tool's record, which `hosts` leaves aside, would cost 18 s."""
    put(store, "a")
    value = Registration("b", "host,b", "up", "200 OK", "n")
    store.create("es/hosts/b", value.to_json(), USUAL_TTL)
    clock.advance(4)
    assert start(store).unsure(LEASE) == []


def test_after_a_crash_others_are_believed_with_a_sign_of_life(
    store: SqliteStore, clock: Clock
) -> None:
    """All nodes killed at once: each would be told to join the others, who are dead."""
    put(store, "a")
    alive = put(store, "b")
    put(store, "c")
    clock.advance(4)
    arrival = start(store)
    assert arrival.unsure(LEASE) == ["host-b", "host-c"]
    clock.advance(1)
    store.keep_alive(alive, USUAL_TTL)
    assert arrival.unsure(LEASE) == ["host-c"]
    clock.advance(USUAL_TTL - 5)
    assert arrival.unsure(LEASE) == []
    assert left(store) == ["es/hosts/b"]


def test_who_came_up_since_is_believed_at_once(store: SqliteStore) -> None:
    """One after the other would wait for the one before it to prove itself."""
    put(store, "a")
    arrival = start(store)
    put(store, "b")
    assert arrival.unsure(LEASE) == []


def test_who_has_missed_its_keepalives_is_not_believed(
    store: SqliteStore, clock: Clock
) -> None:
    """After a power cut the first node up again would join one that is still down.

    Its own "up" has lapsed already, the other one's a moment later.
    """
    put(store, "b")
    clock.advance(USUAL_TTL - 3)
    arrival = start(store)
    assert arrival.unsure(LEASE) == ["host-b"]
    clock.advance(3)
    assert arrival.unsure(LEASE) == []


def test_a_record_in_its_last_second_is_no_sign_of_life(
    store: SqliteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Etcd and DynamoDB round down: all nodes killed and one started again, it would be
    told to join a host that is dead, just before its record lapses."""
    put(store, "a")
    put(store, "b")
    exact = store.time_left
    monkeypatch.setattr(store, "time_left", lambda record: exact(record) // 2 * 2)
    clock.advance(USUAL_TTL - 1.5)
    arrival = start(store)
    for _ in range(2):
        assert arrival.unsure(LEASE) == ["host-b"]
        clock.advance(0.5)
    clock.advance(1)
    assert arrival.unsure(LEASE) == []
    assert left(store) == []


def test_who_waits_long_for_its_turn_waits_for_nothing_else(
    store: SqliteStore, clock: Clock
) -> None:
    """A sign of life would be waited for that was given while this node queued."""
    put(store, "a")
    alive = put(store, "b")
    arrival = start(store)
    for _ in range(4):
        clock.advance(USUAL_TTL / 3)
        store.keep_alive(alive, USUAL_TTL)
    assert arrival.unsure(LEASE) == []


def test_a_long_ttl_is_believed(store: SqliteStore) -> None:
    """A start would wait for minutes for a keepalive that is not due."""
    put(store, "a")
    put(store, "b", ttl=TIMINGS.sign_of_life * 4)
    assert start(store).unsure(LEASE) == []


def test_half_of_the_lease_is_left_to_boot(
    store: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A short lease would be used up by waiting for a ghost."""
    put(store, "a")
    put(store, "b")
    arrival = start(store)
    lease = Lease(LEASE.record, clock() + 4)
    assert arrival.unsure(lease) == ["host-b"]
    clock.advance(2)
    assert arrival.unsure(lease) == []
    assert "no sign of life in time of host-b: taken for up" in caplog.text


def test_the_wait_for_signs_of_life_is_told_once(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that has its turn and does nothing would look stuck."""
    put(store, "a")
    put(store, "b")
    arrival = start(store)
    unsure = arrival.unsure(LEASE)
    assert unsure == ["host-b"]
    with caplog.at_level("INFO"):
        arrival.tell(unsure)
        arrival.tell(unsure)
    told = [text for text in caplog.messages if "sign of life of host-b" in text]
    assert len(told) == 1

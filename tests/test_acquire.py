"""Waiting for the turn with real threads and time, on a store file."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.support.commands import wait_until
from service_monitor.errors import AcquireTimeout, Stopped, StoreUnavailable
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.arrival import Arrival
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.release import release
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.records import Snapshot
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

HANG = 20.0


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., SqliteStore]]:
    opened: list[SqliteStore] = []

    def make(bounds: Bounds | None = None) -> SqliteStore:
        opened.append(SqliteStore(str(tmp_path / "s.db"), bounds or Bounds()))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


MakeStore = Callable[..., SqliteStore]


def request(name: str, **settings: Any) -> Request:
    return Request("es", name, f"host-{name}", **{"lease_timeout": 60.0, **settings})


def take(
    make_store: MakeStore,
    name: str,
    timeout: float = HANG,
    timings: Timings = TIMINGS,
    **settings: Any,
) -> Lease:
    bounds, asked = Bounds(), request(name, **settings)
    return acquire(make_store(bounds), asked, timeout, bounds, timings=timings)


def left_behind(make_store: MakeStore) -> list[str]:
    return [record.key for record in make_store().list("").records]


def test_each_step_is_bounded_by_the_timeout_and_leaving_by_the_grace(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs would hold a node far past --acquire-timeout."""
    bounds, left = Bounds(), list[float]()
    store = make_store(bounds)

    def away(*_: object) -> None:
        left.append(bounds.time_left())
        raise StoreUnavailable("away")

    def look(_: str) -> Snapshot:
        left.append(bounds.time_left())
        return Snapshot(())

    monkeypatch.setattr(store, "list", look)
    monkeypatch.setattr(store, "create", away)
    with pytest.raises(AcquireTimeout):
        acquire(store, request("a"), 0.3, bounds)
    *steps, leaving = left
    assert all(seconds <= 1.3 for seconds in steps)
    assert 1.3 < leaving <= STOP_GRACE
    assert bounds.time_left() == math.inf


@pytest.mark.promise(3)
def test_a_release_hands_over(make_store: MakeStore) -> None:
    """The next node would wait for a timeout instead of its turn."""
    first = take(make_store, "a")
    threading.Timer(0.3, release, (make_store(), "es", "a")).start()
    second = take(make_store, "b")
    assert second.token > first.token
    assert left_behind(make_store) == ["es/lease/b"]


def test_the_timeout_is_one_for_the_whole_wait(make_store: MakeStore) -> None:
    """Each wake-up would start the timeout again, and the command never end."""
    take(make_store, "a")
    begun = now()
    with pytest.raises(AcquireTimeout) as failed:
        take(make_store, "b", 0.5)
    assert 0.4 < now() - begun < HANG / 2
    assert "not acquired within 0.5 s: position 1, held by a (host-a)" in str(
        failed.value
    )
    assert left_behind(make_store) == ["es/lease/a"]


def test_a_stop_while_queued_leaves_no_ticket(make_store: MakeStore) -> None:
    """systemd's stop would hang, and the ticket block the queue."""
    take(make_store, "a")
    bounds = Bounds()
    threading.Timer(0.3, bounds.stop.request).start()
    begun = now()
    with pytest.raises(Stopped):
        acquire(make_store(bounds), request("b"), HANG, bounds)
    assert now() - begun < HANG / 2
    assert left_behind(make_store) == ["es/lease/a"]


@pytest.mark.promise(9)
@pytest.mark.parametrize("call", ["list", "create", "update", "wait"])
def test_a_stop_at_any_call_leaves_no_ticket(make_store: MakeStore, call: str) -> None:
    """A signal at the wrong moment would leave a ticket that nobody knows of."""
    if call == "wait":
        take(make_store, "a")
    bounds = Bounds()
    store: Any = make_store(bounds)
    real = getattr(store, call)

    def strike(*args: Any, **settings: Any) -> Any:
        result = real(*args, **settings) if call != "wait" else None
        bounds.stop.request(15)
        return result

    setattr(store, call, strike)
    with pytest.raises(Stopped):
        acquire(store, request("b"), HANG, bounds)
    assert "es/lease/b" not in left_behind(make_store)


@pytest.mark.promise(8)
def test_an_outage_is_waited_out(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart of the store would fail the start of every node."""
    bounds = Bounds()
    store: Any = make_store(bounds)
    real, calls = store.list, []

    def down(prefix: str) -> Any:
        calls.append(prefix)
        if len(calls) < 4:
            raise StoreUnavailable("etcd is away")
        return real(prefix)

    store.list = down
    with caplog.at_level(logging.INFO):
        acquire(store, request("a"), HANG, bounds)
    assert caplog.text.count("trying again: etcd is away") == 1  # not once a try


def test_an_outage_to_the_end_says_so(make_store: MakeStore) -> None:
    """The operator would look for a holder where the store is the trouble."""
    bounds = Bounds()
    store: Any = make_store(bounds)

    def down(*_: Any) -> Any:
        raise StoreUnavailable("etcd is away")

    store.list = down
    with pytest.raises(AcquireTimeout, match="does not serve us: etcd is away"):
        acquire(store, request("a"), 0.5, bounds)


def test_an_outage_is_not_a_hot_loop(make_store: MakeStore) -> None:
    """A store that comes back would be met by a storm."""
    bounds = Bounds()
    store: Any = make_store(bounds)
    calls: list[str] = []

    def down(prefix: str) -> Any:
        calls.append(prefix)
        raise StoreUnavailable("etcd is away")

    store.list = down
    with pytest.raises(AcquireTimeout):
        acquire(store, request("a"), 1.0, bounds)
    assert len(calls) < 12


def test_a_wait_that_returns_at_once_is_not_a_hot_loop(make_store: MakeStore) -> None:
    """A watch that breaks would turn the waiter into a load test of the store."""
    take(make_store, "a")
    bounds = Bounds()
    store: Any = make_store(bounds)
    looks: list[str] = []
    real = store.list

    def look(prefix: str) -> Any:
        looks.append(prefix)
        return real(prefix)

    store.list = look
    store.wait = lambda *args, **settings: None
    with pytest.raises(AcquireTimeout):
        acquire(store, request("b"), 0.5, bounds)
    assert len(looks) < 40


def test_a_stop_while_looking_writes_nothing_any_more(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the grace would go on a ticket, and none be left to undo it."""
    bounds = Bounds()
    store = make_store(bounds)
    look, written = store.list, list[str]()

    def slow(prefix: str) -> Snapshot:
        found = look(prefix)
        bounds.stop.request()
        return found

    monkeypatch.setattr(store, "list", slow)
    monkeypatch.setattr(store, "create", lambda key, *_: written.append(key))
    with pytest.raises(Stopped):
        acquire(store, request("a"), HANG, bounds)
    assert written == []


def test_a_stop_that_came_before_asks_the_store_nothing(make_store: MakeStore) -> None:
    """A node stopped while it started would take the lease, and give it back."""
    bounds = Bounds()
    store: Any = make_store(bounds)
    bounds.stop.request(15)
    store.create = store.list = None  # any call fails
    with pytest.raises(Stopped):
        acquire(store, request("a"), HANG, bounds)


def test_the_place_and_the_holder_are_told_when_they_change(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """At 3 a.m. nobody could see what the node waits for."""
    timings = Timings(look_later=0.2)
    take(make_store, "a")
    threads = []
    wanted = [
        "label es: waiting, position 1, held by a (host-a)",
        "label es: waiting, position 2, held by a (host-a), after b",
        "label es: waiting, position 1, held by b (host-b)",
    ]

    def told() -> list[str]:
        # A look between a release and the next grant sees, and tells, that too.
        passing = "free but not taken yet"
        return [m for m in caplog.messages if "waiting" in m and passing not in m]

    with caplog.at_level(logging.INFO):
        for name in "bc":
            threads.append(
                threading.Thread(target=take, args=(make_store, name, HANG, timings))
            )
            threads[-1].start()
            wait_until(lambda: told() == wanted[: len(threads)])
        release(make_store(), "es", "a")
        wait_until(lambda: told() == wanted)
        release(make_store(), "es", "b")
        for thread in threads:
            thread.join(HANG)
    assert told() == wanted


def test_with_slots_each_grant_wakes_the_one_behind(make_store: MakeStore) -> None:
    """Of two slots freed at once, one would stay unused until somebody looks."""
    timings = Timings(look_next=HANG * 2, look_later=HANG * 2)

    def take_one_of_two(name: str) -> None:
        take(make_store, name, HANG, timings, slots=2)

    take_one_of_two("a")
    take_one_of_two("b")
    threads = []
    for name in "cd":
        threads.append(threading.Thread(target=take_one_of_two, args=(name,)))
        threads[-1].start()
        time.sleep(0.3)
    begun = now()
    release(make_store(), "es", "a")
    release(make_store(), "es", "b")
    for thread in threads:
        thread.join(HANG)
    assert now() - begun < HANG / 4


def test_a_lease_that_is_over_when_it_comes_is_not_used(
    make_store: MakeStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process paused right after the grant would start on somebody else's turn."""
    bounds = Bounds()
    store: Any = make_store(bounds)
    real, delays = store.update, [1.2]

    def slow(*args: Any) -> Any:
        record = real(*args)
        time.sleep(delays.pop() if delays else 0)
        return record

    store.update = slow
    lease = acquire(store, request("a", lease_timeout=1.0), HANG, bounds)
    assert now() < lease.deadline
    assert "expired before it could be used" in caplog.text


def test_twenty_at_once_come_one_after_the_other(make_store: MakeStore) -> None:
    """Nodes that boot at the same moment would start at the same moment."""
    holding, most, order = 0, 0, []
    lock = threading.Lock()

    def node(name: str) -> None:
        nonlocal holding, most
        lease = take(make_store, name, 60)
        with lock:
            holding += 1
            most = max(most, holding)
            order.append(lease.record.created)
        time.sleep(0.02)
        with lock:
            holding -= 1
        make_store().delete(lease.record)

    threads = [threading.Thread(target=node, args=(f"n{i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(order), most) == (20, 1)
    assert order == sorted(order)
    assert left_behind(make_store) == []


class Dawdling(Arrival):
    """Takes longer to look around, once, than the lease lasts."""

    looks = 0

    def unsure(self, lease: Lease) -> list[str]:
        self.looks += 1
        if self.looks == 1:
            time.sleep(lease.deadline - now() + 0.2)
        return []


def test_a_lease_that_ends_while_others_are_looked_for_is_not_used(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A node would start beside the next one after an outage or a pause just then."""
    bounds = Bounds()
    store = make_store(bounds)
    asked = request("a", lease_timeout=1.0)
    arrival = Dawdling(store, asked)
    lease = acquire(store, asked, HANG, bounds, arrival=arrival)
    assert now() < lease.deadline
    assert arrival.looks == 2
    assert "the lease expired before it could be used" in caplog.text

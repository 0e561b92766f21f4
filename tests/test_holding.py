"""The startup lease of a `run`: renewed from the start, and lost once, for a reason."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from integration.support.commands import HANG, wait_until
from integration.support.fakes import Clock, memory_store
from service_monitor.errors import AcquireTimeout, LocalLack, Stopped, StoreUnavailable
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.node import holding as module
from service_monitor.node import startup_lease
from service_monitor.node.ending import Ending
from service_monitor.node.holding import Holding
from service_monitor.node.notify import Notifier
from service_monitor.node.plan import Plan
from service_monitor.node.probe import Result
from service_monitor.node.pulse import STEP, Pulse
from service_monitor.node.runner import Runner
from service_monitor.node.startup_lease import AnyOfOurs, Held
from service_monitor.node.watcher import Rhythm, Watched, Watcher
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.publisher import Service
from service_monitor.records import Record
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

OK, BAD = Result(True, "200 OK"), Result(False, "connection refused")
KEY = "es/lease/a"


class Bench:
    """A watcher that holds a lease, with a store that can go away or hang."""

    def __init__(self, path: Path) -> None:
        self.bounds = Bounds()
        self.real = SqliteStore(str(path), Bounds())
        self.store: Any = SqliteStore(str(path), self.bounds)
        self.result = BAD
        self.losses = 0
        self.pulse = Pulse(15.0)
        self.watcher: Watcher

    def hold(self, lease_timeout: float) -> Lease:
        asked = Request("es", "a", "10.0.0.1", lease_timeout, stays=True)
        lease = Contender(self.real, asked).step()
        assert isinstance(lease, Lease)
        service = Service("es", "a", "10.0.0.1")
        self.watcher = Watcher(
            self.store,
            Watched(service, lambda: self.result, Rhythm(0.05)),
            Held(lease, self.lose),
            self.pulse,
            self.bounds,
        )
        return lease

    def lose(self) -> None:
        self.losses += 1

    def outage(self) -> None:
        def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("etcd is away")

        for name in "list", "create", "update", "delete", "keep_alive":
            setattr(self.store, name, away)

    def back(self) -> None:
        for name in "list", "create", "update", "delete", "keep_alive":
            delattr(self.store, name)

    @property
    def held(self) -> tuple[Record, ...]:
        return self.real.list(KEY).records

    def close(self) -> None:
        self.watcher.lease.let_go()
        self.store.close()
        self.real.close()


@pytest.fixture
def bench(path: Path) -> Iterator[Bench]:
    made = Bench(path)
    yield made
    made.close()


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [m for m in caplog.messages if "the startup lease went" in m]


def test_a_lease_lost_in_an_outage_is_lost_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator would be told twice, and the service be stopped twice."""
    bench.hold(3.0)
    bench.watcher.round()
    bench.outage()
    bench.watcher.round()
    wait_until(lambda: bench.losses == 1)
    bench.watcher.round()
    time.sleep(0.3)  # it lapses in the store, too
    bench.back()
    for _ in range(3):
        bench.watcher.round()
    assert bench.losses == 1
    (told,) = lost(caplog)
    assert told == (
        "the startup lease went before the service was up (connection refused): not "
        "renewed in time: etcd is away. The next node may start now"
    )


def test_a_lease_timeout_that_is_over_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator would look for a pause or an outage that never was."""
    bench.hold(3.0)
    while not bench.losses:
        bench.watcher.round()
    time.sleep(0.3)
    bench.watcher.round()
    (told,) = lost(caplog)
    assert "--lease-timeout 3 s is over and the service was not up" in told
    assert "renewed" not in told
    assert "paused" not in told


def test_a_lease_that_was_taken_away_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be blamed on a --lease-timeout that is long enough."""
    bench.hold(60.0)
    bench.watcher.round()
    bench.real.delete(bench.held[0])
    bench.watcher.round()
    bench.watcher.round()
    assert bench.losses == 1
    (told,) = lost(caplog)
    assert "released by hand, or another start of this service id has it" in told


def test_its_loss_is_seen_while_a_call_hangs(bench: Bench) -> None:
    """A founder that is cut off would go on until a call and a probe have ended."""
    lease = bench.hold(1.0)
    hang = threading.Event()

    def hanging(prefix: str) -> Any:
        hang.wait(HANG)
        raise StoreUnavailable("no answer in time")

    bench.store.list = hanging
    thread = threading.Thread(target=bench.watcher.round, daemon=True)
    thread.start()
    wait_until(lambda: bench.losses == 1)
    assert now() < lease.deadline + HANG / 4
    assert thread.is_alive()
    hang.set()
    thread.join(HANG)


def test_it_is_vouched_for_before_the_first_round(bench: Bench) -> None:
    """After a long wait in the queue the lease would lapse while COMMAND starts."""
    bench.pulse._latest = now() - 3600
    bench.hold(60.0)
    assert bench.pulse.vouch()


def test_what_came_up_unseen_is_lost_all_the_same(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A founder would go on that nobody can find, beside the next one."""
    bench.hold(2.0)
    bench.result = OK
    bench.outage()
    while not bench.losses:
        bench.watcher.round()
    assert not bench.watcher.published
    assert "went before the store said that it is up (200 OK)" in lost(caplog)[0]


def test_what_is_released_is_not_lost(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Each good start would end with an alarm."""
    bench.hold(2.0)
    bench.result = OK
    with caplog.at_level(logging.INFO):
        bench.watcher.round()
        time.sleep(2.3)
        bench.watcher.round()
    assert "startup lease released" in caplog.text
    assert (bench.losses, lost(caplog)) == (0, [])
    assert bench.watcher.published


def test_a_late_last_renewal_does_not_outlast_the_lease_timeout(bench: Bench) -> None:
    """A node that never comes up would hold up the others for longer than it may."""
    bench.hold(1.0)
    (record,) = bench.held
    bench.real.keep_alive(record, 60)
    while not bench.losses:
        bench.watcher.round()
    wait_until(lambda: bench.watcher.round() or not bench.held)  # type: ignore[func-returns-value]
    assert bench.losses == 1


@pytest.mark.parametrize(
    ("pause", "trouble", "over", "said"),
    [
        (0.0, "", True, "--lease-timeout 4 min is over and the service was not up"),
        (5.0, "", True, "--lease-timeout 4 min is over and the service was not up"),
        (40.0, "", False, "not renewed in time: this process was paused for 40 s"),
        (40.0, "no answer", False, "not renewed in time: this process was paused for"),
        (0.0, "etcd is away", False, "not renewed in time: etcd is away"),
        (0.0, "etcd is away", True, "not renewed in time: etcd is away"),
    ],
)
def test_the_reason_is_what_happened(
    monkeypatch: pytest.MonkeyPatch, pause: float, trouble: str, over: bool, said: str
) -> None:
    """At 3 a.m. the operator would be sent to the wrong machine."""
    clock = Clock()
    monkeypatch.setattr(module, "now", clock)
    store = memory_store(clock)
    lease = Contender(
        store, Request("es", "a", "10.0.0.1", 240.0, stays=True), clock
    ).step()
    assert isinstance(lease, Lease)
    lease = replace(lease, until=clock() + (0.0 if over else 240.0))
    held = Holding(store, lease, lambda: True, lambda: None)
    held._paused = pause
    if over:
        clock.advance(30)
        held._looked = clock()
    assert held.why(trouble).startswith(said)
    held.end()


class Slow:
    """A store whose every call takes its whole time, on a clock of ours."""

    def __init__(self, store: SqliteStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        def call(*args: Any, **settings: Any) -> Any:
            self._clock.advance(5.0)
            if name in self.failing:
                raise StoreUnavailable("no answer in time")
            return None if name == "wait" else real(*args, **settings)

        return call


@pytest.mark.parametrize(
    "failing", [set(), {"update"}, {"update", "delete"}, {"list"}, {"delete"}]
)
def test_no_step_takes_longer_than_the_watchdog_allows(
    monkeypatch: pytest.MonkeyPatch, failing: set[str]
) -> None:
    """systemd would kill a watch whose store hangs, and the service with it."""
    clock = Clock()
    for name in "watcher", "pulse", "startup_lease":
        monkeypatch.setattr(f"service_monitor.node.{name}.now", clock)
    store = memory_store(clock)
    slow, beats = Slow(store, clock), [clock()]
    notifier = Notifier()
    monkeypatch.setattr(notifier, "beat", lambda _: beats.append(clock()))
    bounds = Bounds()
    monkeypatch.setattr(bounds.stop, "wait", lambda seconds, *_: clock.advance(seconds))
    results = iter([OK, BAD, OK, BAD, BAD])
    service = Service("es", "a", "10.0.0.1", ttl=3600)
    watched = Watched(service, lambda: next(results), Rhythm(6.0, fall=1))
    pulse = Pulse(service.ttl, notifier)
    watcher = Watcher(slow, watched, AnyOfOurs(), pulse, bounds)
    for turn in range(5):
        if turn:
            slow.failing = failing
        store.delete(*store.list(KEY).records) if store.list(KEY).records else None
        assert Contender(store, Request("es", "a", "10.0.0.1"), clock).step()
        watcher.round()
    gaps = [b - a for a, b in pairwise(beats)]
    assert max(gaps) < STEP


class Start:
    """One start of a `run` whose COMMAND is never reached, and what systemd hears."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.bounds, notifier = Bounds(), Notifier()
        monkeypatch.setattr(notifier, "beat", lambda _: self.told.append("beat"))
        monkeypatch.setattr(notifier, "extend", lambda _: self.told.append("extend"))
        monkeypatch.setattr(notifier, "status", self.told.append)
        self.store: Any = SqliteStore(str(path), self.bounds)
        service = Service("es", "a", "10.0.0.1")
        self.runner = Runner(
            self.store,
            Request("es", "a", "10.0.0.1", stays=True),
            Plan(("true",), 0.1, False, None, 10.0, 0.0),
            Watched(service, lambda: BAD, Rhythm()),
            Pulse(service.ttl, notifier),
            self.bounds,
            Ending(),
        )


@pytest.fixture
def begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    made = Start(path, monkeypatch)
    yield made
    made.store.close()


def test_a_wait_for_a_thread_gives_signs_of_life(
    begun: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd would kill a `run` that waits for what passes, with its watchdog."""
    told = begun.told

    def no_thread(*_: object) -> None:
        told.append("lack")
        if told.count("lack") == 3:
            begun.bounds.stop.request()
        raise LocalLack("this machine lacks threads")

    monkeypatch.setattr(startup_lease, "Holding", no_thread)
    with pytest.raises(Stopped):
        begun.runner.run()
    first, second, third = (i for i, said in enumerate(told) if said == "lack")
    assert "extend" in told[:first]
    assert "beat" in told[first:second]
    assert "beat" in told[second:third]


def test_an_outage_after_the_turn_has_come_is_told(
    begun: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemctl status` would go on with a place in the queue."""
    real = begun.store.list

    def away(prefix: str) -> Any:
        if "extend" in begun.told and prefix == "es/hosts/":  # it has the lease
            begun.bounds.stop.request()
            raise StoreUnavailable("etcd is away")
        return real(prefix)

    monkeypatch.setattr(begun.store, "list", away)
    with pytest.raises(Stopped):
        begun.runner.run()
    said = "its turn has come; the store does not serve us: etcd is away"
    assert said in begun.told


def test_a_start_that_timed_out_has_no_time_left_for_the_store(
    begun: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To close a store that hangs would take its whole timeout once more."""

    def away(*_: object) -> None:
        raise StoreUnavailable("etcd is away")

    monkeypatch.setattr(begun.store, "list", away)
    with pytest.raises(AcquireTimeout):
        begun.runner.run()
    with begun.bounds.within_the_last():
        assert begun.bounds.time_left() <= STOP_GRACE

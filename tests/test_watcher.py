"""Probe, publish, release: the rounds of `watch`."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service_monitor.errors import StoreUnavailable
from service_monitor.net.calls import Stop
from service_monitor.node.probe import Result
from service_monitor.node.watcher import Rhythm, Watcher
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.lease import Contender, Lease, Request
from service_monitor.recipes.registry import Service
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

OK, BAD = Result(True, "200 OK"), Result(False, "connection refused")
HANG = 20.0


class Bench:
    """A watcher on a store file, a service that answers as told, and a log of calls."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.stop = Stop()
        self.store: Any = SqliteStore(self.path, self.stop)
        self.others = SqliteStore(self.path, Stop())
        self.answers: list[Result] = []
        self.answer = BAD
        self.on_probe: Callable[[], object] = lambda: None
        self.thread: threading.Thread | None = None
        self.watcher: Watcher

    def probe(self) -> Result:
        self.on_probe()
        return self.answers.pop(0) if self.answers else self.answer

    def build(self, ttl: float = 15.0, **rhythm: Any) -> Watcher:
        service = Service("es", "a", "host-a", ttl)
        settings = {"interval": 0.05, **rhythm}
        self.watcher = Watcher(
            self.store, service, Rhythm(**settings), self.probe, self.stop
        )
        return self.watcher

    def start(self, **settings: Any) -> None:
        self.thread = threading.Thread(target=self.build(**settings).run)
        self.thread.start()

    def end(self) -> None:
        self.stop.request(15)
        if self.thread:
            self.thread.join(HANG)
            assert not self.thread.is_alive()
        self.store.close()
        self.others.close()

    def acquire(self, name: str = "a", timeout: float = 60.0) -> Lease:
        contender = Contender(self.others, Request("es", name, "h", timeout))
        lease = contender.step()
        assert isinstance(lease, Lease)
        return lease

    @property
    def hosts(self) -> list[str]:
        return up_hosts(self.others.list("es/hosts/").records)

    @property
    def holders(self) -> list[str]:
        return [r.key for r in self.others.list("es/lease/").records]


def until(true: Callable[[], Any], seconds: float = HANG) -> None:
    deadline = now() + seconds
    while not true():
        assert now() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "s.db")
    yield made
    made.end()


def test_up_is_published_and_withdrawn_on_stop(bench: Bench) -> None:
    """`hosts` would miss a healthy node, or list one that was stopped."""
    bench.answer = OK
    bench.start()
    until(lambda: bench.hosts == ["host-a"])
    bench.stop.request(15)
    until(lambda: bench.others.list("").records == ())


@pytest.mark.promise(6)
def test_an_up_that_a_start_took_back_is_not_told_again_by_a_failed_probe(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Restarted beside its watch, a node would be listed while it queues."""
    caplog.set_level(logging.INFO)
    bench.answer = OK
    watcher = bench.build(fall=3)
    watcher.round()
    assert bench.hosts == ["host-a"]
    bench.answer = BAD
    for record in bench.others.list("es/hosts/").records:
        bench.others.delete(record)
    watcher.round()
    (record,) = bench.others.list("es/hosts/").records
    assert '"state": "down"' in record.value
    assert '"reason": "connection refused"' in record.value
    assert "a is down: connection refused" in caplog.text
    bench.answer = OK
    watcher.round()
    assert bench.hosts == ["host-a"]


def test_an_up_that_went_while_the_service_serves_is_told_again(bench: Bench) -> None:
    """A record that lapsed in an outage would leave a healthy node unlisted."""
    bench.answer = OK
    watcher = bench.build()
    watcher.round()
    for record in bench.others.list("es/hosts/").records:
        bench.others.delete(record)
    watcher.round()
    assert bench.hosts == ["host-a"]


@pytest.mark.promise(6)
def test_down_after_fall_failures_and_up_after_rise(bench: Bench) -> None:
    """One dropped packet would take a node out of the cluster's list."""
    bench.answers = [OK, BAD, OK, BAD, BAD, OK, OK]
    watcher = bench.build(rise=2, fall=2)
    states = []
    bench.answers = [OK, OK, BAD, OK, BAD, BAD, OK, OK]
    for _ in range(8):
        watcher.round()
        states.append(bool(bench.hosts))
    assert states == [False, True, True, True, True, False, False, True]


@pytest.mark.promise(5)
def test_up_is_in_the_store_before_the_lease_is_released(bench: Bench) -> None:
    """The next node would not find this one and found a cluster of its own."""
    bench.acquire()
    bench.answer = OK
    seen: list[list[str]] = []
    real = bench.store.delete

    def delete(record: Any) -> None:
        if record.key.startswith("es/lease/"):
            seen.append(bench.hosts)
        real(record)

    bench.store.delete = delete
    bench.build().round()
    assert seen == [["host-a"]]
    assert bench.holders == []


def test_no_release_while_up_cannot_be_published(bench: Bench) -> None:
    """The turn would be handed on although nobody can find this node."""
    bench.acquire()
    bench.answer = OK

    def refuse(*_: Any) -> Any:
        raise StoreUnavailable("away")

    bench.store.create = refuse
    watcher = bench.build()
    watcher.round()
    assert bench.holders == ["es/lease/a"]
    del bench.store.create
    watcher.round()
    assert bench.holders == []


@pytest.mark.promise(5)
def test_release_needs_rise_successes(bench: Bench) -> None:
    """--rise would not hold for what matters most."""
    bench.acquire()
    bench.answers = [OK, BAD, OK, OK, OK]
    watcher = bench.build(rise=3, fall=9)
    for _ in range(4):
        watcher.round()
        assert bench.holders
    watcher.round()
    assert not bench.holders


@pytest.mark.promise(5)
def test_a_probe_begun_before_the_acquisition_does_not_count(bench: Bench) -> None:
    """An answer of the old process would free the lease of the new start."""
    bench.answer = OK
    watcher = bench.build(rise=2)
    watcher.round()
    watcher.round()  # up, and every probe succeeds
    bench.on_probe = lambda: None if bench.holders else bench.acquire()
    watcher.round()  # acquired while this probe was under way
    assert bench.holders
    bench.on_probe = lambda: None
    watcher.round()
    assert bench.holders  # seen now; this is the first probe that counts
    watcher.round()
    assert not bench.holders


@pytest.mark.promise(5)
def test_a_newer_acquisition_is_not_released_for_the_older(bench: Bench) -> None:
    """A watch left over would free the lease of the start that came after."""
    bench.acquire()
    bench.answer = OK
    watcher = bench.build()
    newer: list[Lease] = []

    def acquire_once() -> None:
        if not newer:
            newer.append(bench.acquire())

    bench.on_probe = acquire_once
    watcher.round()
    (record,) = bench.others.list("es/lease/").records
    assert record.version == newer[0].token
    watcher.round()
    assert bench.holders == []


def test_another_service_ids_lease_is_never_touched(bench: Bench) -> None:
    """A healthy neighbour would free the lease of a node that is still starting."""
    bench.acquire("b")
    bench.answer = OK
    watcher = bench.build()
    watcher.round()
    watcher.round()
    assert bench.holders == ["es/lease/b"]


def test_probes_are_quick_while_starting(bench: Bench) -> None:
    """The next node would wait for a whole --interval after this one is healthy."""
    bench.acquire()
    bench.start(interval=HANG * 2)
    time.sleep(0.3)
    bench.answer = OK
    until(lambda: not bench.holders, HANG)


def test_a_tcp_service_that_answers_is_left_in_peace(bench: Bench) -> None:
    """Four connections a second without a word make a database lock its host out."""
    bench.acquire()
    probes: list[float] = []
    bench.on_probe = lambda: probes.append(now())
    bench.answers, bench.answer = [BAD, BAD], OK
    bench.start(interval=HANG * 2, rise=4, connected=0.8)
    until(lambda: not bench.holders)
    gaps = [after - before for before, after in itertools.pairwise(probes)]
    assert len(gaps) == 5
    assert gaps[0] < 0.7  # nothing was there to be disturbed
    assert min(gaps[2:]) >= 0.79


def test_the_pace_after_a_success_is_never_slower_than_asked_for(bench: Bench) -> None:
    """A turn would be handed over later than with no lease at all."""
    bench.acquire()
    bench.answer = OK
    begun = now()
    bench.start(interval=0.05, rise=4, connected=HANG)
    until(lambda: not bench.holders)
    assert now() - begun < HANG


def test_an_acquisition_wakes_an_idle_watch(bench: Bench) -> None:
    """A watch that runs on through a restart would hand over --interval late."""
    bench.answer = OK
    bench.start(interval=HANG * 2)
    until(lambda: bench.hosts)
    time.sleep(0.2)
    bench.acquire()
    until(lambda: not bench.holders, HANG)


def test_a_wait_that_returns_at_once_does_not_hurry_probes(bench: Bench) -> None:
    """A broken watch of the store would turn probing into a load test."""
    probes: list[float] = []
    bench.answer = OK
    bench.on_probe = lambda: probes.append(now())
    bench.store.wait = lambda *a, **k: None
    bench.start(interval=5)
    time.sleep(0.7)
    assert len(probes) == 1


@pytest.mark.promise(8)
def test_probing_goes_on_while_the_store_is_away(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A blip of the store would end the watch, or change the service's state."""
    bench.answer = OK
    watcher = bench.build()
    watcher.round()
    real = bench.store.list

    def away(prefix: str) -> Any:
        raise StoreUnavailable("etcd is away")

    bench.store.list = away
    for record in bench.others.list("").records:
        bench.others.delete(record)  # it lapsed meanwhile
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            watcher.round()
        bench.store.list = real
        watcher.round()
    assert bench.hosts == ["host-a"]
    assert caplog.text.count("etcd is away") == 1
    assert "the store is back" in caplog.text


def test_what_was_missed_in_an_outage_is_caught_up_soon(bench: Bench) -> None:
    """A blip of the store would delay a hand-over by a whole --interval."""
    bench.answer = OK
    real = bench.store.list
    outage = threading.Event()
    outage.set()

    def list_(prefix: str) -> Any:
        if outage.is_set():
            raise StoreUnavailable("away")
        return real(prefix)

    bench.store.list = list_
    bench.start(interval=HANG * 2)
    time.sleep(0.3)
    bench.acquire()
    outage.clear()
    until(lambda: not bench.holders and bench.hosts, HANG / 2)


def test_each_change_is_logged_once_with_its_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The log would say nothing, or the same thing every five seconds."""
    bench.answers = [BAD, BAD, OK, OK, BAD, Result(False, "503"), BAD]
    watcher = bench.build()
    with caplog.at_level(logging.INFO):
        for _ in range(7):
            watcher.round()
    told = [message for message in caplog.messages if " is " in message]
    assert told == [
        "label es: a is down: connection refused",
        "label es: a is up: 200 OK",
        "label es: a is down: 503",
    ]


def test_a_lease_lost_while_booting_is_warned_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes would start at once and nobody would know why."""
    bench.acquire(timeout=0.2)
    watcher = bench.build()
    watcher.round()
    time.sleep(0.3)
    watcher.round()
    (warning,) = [m for m in caplog.messages if "before the service was up" in m]
    assert "--lease-timeout was 0.2 s" in warning
    assert "connection refused" in warning


def test_a_lost_reply_to_the_release_is_no_lost_lease(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator would be woken for two nodes starting at once."""
    bench.acquire()
    bench.answer = OK
    watcher = bench.build()
    real = bench.store.delete

    def delete(record: Any) -> None:
        real(record)
        raise StoreUnavailable("reply lost")

    bench.store.delete = delete
    with caplog.at_level(logging.INFO):
        watcher.round()
        bench.store.delete = real
        watcher.round()
    assert "startup lease released" in caplog.text
    assert "before the service was up" not in caplog.text


@pytest.mark.promise(6)
def test_a_hung_probe_is_not_vouched_for(bench: Bench) -> None:
    """A watch that hangs would list a dead service for ever."""
    bench.answer = OK
    bench.start(ttl=0.6)
    until(lambda: bench.hosts)
    hang = threading.Event()
    bench.on_probe = lambda: hang.wait(HANG)
    until(lambda: not bench.hosts)
    hang.set()
    until(lambda: bench.hosts)


def test_a_stop_without_the_store_is_quick(bench: Bench) -> None:
    """systemd would have to kill a watch whose store is away."""
    bench.answer = OK
    bench.start()
    until(lambda: bench.hosts)

    def away(prefix: str) -> Any:
        raise StoreUnavailable("away")

    bench.store.list = away
    begun = now()
    bench.stop.request(15)
    assert bench.thread
    bench.thread.join(HANG)
    assert now() - begun < HANG / 2

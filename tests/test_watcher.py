"""The rounds of `watch`: probe, publish, and go on whatever the store does."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Any

import pytest

from integration.support.bench import BAD, OK, Bench
from integration.support.commands import HANG, passing, wait_until
from service_monitor.errors import StoreUnavailable
from service_monitor.node.probe import Result
from service_monitor.timing import now


def test_up_is_published_and_withdrawn_on_stop(bench: Bench) -> None:
    """`hosts` would miss a healthy node, or list one that was stopped."""
    bench.answer = OK
    bench.start()
    wait_until(lambda: bench.hosts == ["host-a"])
    bench.bounds.stop.request(15)
    wait_until(lambda: not passing(bench.others))


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


def test_probes_are_quick_while_starting(bench: Bench) -> None:
    """The next node would wait for a whole --interval after this one is healthy."""
    bench.acquire()
    bench.start(interval=HANG * 2)
    time.sleep(0.3)
    bench.answer = OK
    wait_until(lambda: not bench.holders, HANG)


def test_a_tcp_service_that_answers_is_left_in_peace(bench: Bench) -> None:
    """Four connections a second without a word make a database lock its host out."""
    bench.acquire()
    probes: list[float] = []
    bench.on_probe = lambda: probes.append(now())
    bench.answers, bench.answer = [BAD, BAD], OK
    bench.start(interval=HANG * 2, rise=4, connected=0.8)
    wait_until(lambda: not bench.holders)
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
    wait_until(lambda: not bench.holders)
    assert now() - begun < HANG


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
    wait_until(lambda: not bench.holders and bench.hosts, HANG / 2)


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


@pytest.mark.promise(6)
def test_a_hung_probe_is_not_vouched_for(bench: Bench) -> None:
    """A watch that hangs would list a dead service for ever."""
    bench.answer = OK
    bench.start(ttl=0.6)
    wait_until(lambda: bench.hosts)
    hang = threading.Event()
    bench.on_probe = lambda: hang.wait(HANG)
    wait_until(lambda: not bench.hosts)
    hang.set()
    wait_until(lambda: bench.hosts)


def test_a_stop_without_the_store_is_quick(bench: Bench) -> None:
    """systemd would have to kill a watch whose store is away."""
    bench.answer = OK
    bench.start()
    wait_until(lambda: bench.hosts)

    def away(prefix: str) -> Any:
        raise StoreUnavailable("away")

    bench.store.list = away
    begun = now()
    bench.bounds.stop.request(15)
    assert bench.thread
    bench.thread.join(HANG)
    assert now() - begun < HANG / 2

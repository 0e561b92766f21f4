"""When `watch` releases the lease, and which acquisition."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from integration.support.bench import BAD, OK, Bench
from integration.support.commands import HANG, wait_until
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.lease import Lease


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


def test_an_acquisition_wakes_an_idle_watch(bench: Bench) -> None:
    """A watch that runs on through a restart would hand over --interval late."""
    bench.answer = OK
    bench.start(interval=HANG * 2)
    wait_until(lambda: bench.hosts)
    time.sleep(0.2)
    bench.acquire()
    wait_until(lambda: not bench.holders, HANG)


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

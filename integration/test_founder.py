"""A node that is to found the cluster, and loses its lease while it boots."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.support.cli import environment
from integration.support.etcd import Etcd
from service_monitor.net.calls import Bounds
from service_monitor.records import Ticket
from service_monitor.stores.base import Store
from service_monitor.stores.opening import open_store

pytestmark = pytest.mark.timeout(180)

HANG = 60.0
"""Seconds; a bound against hangs, never a measure of speed."""
LEASE = 8.0
BOOT = """
trap 'date +%s.%N >>"$SEEN"; exit 0' TERM
echo "$SERVICE_MONITOR_FIRST" >>"$SEEN"
while :; do sleep 0.05; done
"""


class Founder:
    """A `run` that boots for ever, as the first."""

    def __init__(self, url: str, label: str, seen: Path) -> None:
        self.seen = seen
        self.log = seen.with_suffix(".log")
        self.started = time.time()
        argv = [sys.executable, "-m", "service_monitor", "run", "--service-id=a"]
        argv += [f"--label={label}", "--host=10.0.0.1", f"--lease-timeout={LEASE}"]
        argv += ["--monitor-url=tcp://127.0.0.1:1", "--", "sh", "-c", BOOT]
        environ = environment() | {"SERVICE_MONITOR_STORE": url, "SEEN": str(seen)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=environ, stderr=log)

    def lines(self) -> list[str]:
        return self.seen.read_text().splitlines() if self.seen.exists() else []

    def wait_for_lines(self, count: int) -> None:
        deadline = time.monotonic() + HANG
        while len(self.lines()) < count:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def founder(url: str, label: str, seen: Path) -> Iterator[Founder]:
    booting = Founder(url, label, seen)
    try:
        booting.wait_for_lines(1)
        assert booting.lines() == ["1"]
        yield booting
    finally:
        booting.process.send_signal(signal.SIGCONT)
        booting.process.terminate()
        booting.process.wait(HANG)


def lease_end(store: Store, label: str) -> float:
    """Return when the store ends the lease, as its clock has it."""
    (record,) = store.list(f"{label.lower()}/lease/a").records
    ticket = Ticket.from_json(record.value)
    assert ticket
    assert ticket.held
    return time.time() + store.time_left(record)


def test_a_founder_that_is_cut_off_is_stopped_by_its_deadline(
    fresh_etcd: Etcd, label: str, tmp_path: Path
) -> None:
    """It would found a cluster beside the one that the next node is told to found."""
    with founder(fresh_etcd.url, label, tmp_path / "seen") as booting:
        store = open_store(fresh_etcd.url, Bounds(), {})
        end = lease_end(store, label)
        store.close()
        fresh_etcd.pause()
        try:
            assert booting.process.wait(HANG) == 1
        finally:
            fresh_etcd.resume()
        (_, stopped) = booting.lines()
        # etcd tells whole seconds, rounded down: its lease ended in the second after.
        # Two more for a busy machine; a call to a store that hangs would take five.
        assert float(stopped) < end + 1 + 2
    assert "the startup lease went before the service was up" in booting.log.read_text()


def test_a_founder_that_was_paused_too_long_is_stopped(
    etcd: Etcd, label: str, tmp_path: Path
) -> None:
    """It would go on booting as the first when the machine wakes up."""
    with founder(etcd.url, label, tmp_path / "seen") as booting:
        booting.process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE + 1)
        assert len(booting.lines()) == 1
        booting.process.send_signal(signal.SIGCONT)
        assert booting.process.wait(HANG) == 1
        assert len(booting.lines()) == 2
    assert "not renewed in time: this process was paused" in booting.log.read_text()


def test_the_next_one_founds_after_it(etcd: Etcd, label: str, tmp_path: Path) -> None:
    """Nobody would found the cluster, or two nodes at a time."""
    with founder(etcd.url, label, tmp_path / "seen") as booting:
        assert booting.process.wait(HANG) == 1
        with founder(etcd.url, label, tmp_path / "again"):
            pass
    assert f"--lease-timeout {LEASE:g} s is over" in booting.log.read_text()

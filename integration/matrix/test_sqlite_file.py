"""The fault matrix: what can happen to the file of an SQLite store."""

from __future__ import annotations

import random
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from integration.faults.processes import HANG, Commands, wait_for
from integration.matrix.scenes import (
    by_way_of,
    failed,
    held,
    mounting,
    node,
    queued,
    release,
    states,
    stopped,
)
from integration.support.interrupts import uninterrupted

pytestmark = pytest.mark.timeout(120, func_only=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be in the middle of a transaction that writes."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=HANG)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


def test_a_file_that_others_lock(sqlite: Commands, path: Path) -> None:
    """A backup, or one stuck process, would fail every start."""
    held(sqlite, "es-1")
    waiter = queued(sqlite, "es-2")
    with locked(path):
        commands = [sqlite("release-lease", "--service-id=es-1"), sqlite("hosts")]
        time.sleep(1)
        assert waiter.code is None, waiter
    for command in *commands, waiter:
        assert command.wait() == 0, command
    with locked(path):
        hosts = sqlite("hosts")
        impatient = node(sqlite, "acquire-lease", "es-3", "--acquire-timeout=200ms")
        leaving = node(sqlite, "acquire-lease", "es-4")
        patient = node(sqlite, "acquire-lease", "es-5")
        assert "database is locked" in failed(hosts, 69)
        assert "database is locked" in failed(impatient, 1)
        patient.wait_said("database is locked")
        assert stopped(leaving) == 143
    patient.wait_said("waiting, position")
    assert states(sqlite) == {"es-2": "held", "es-5": "waiting"}
    release(sqlite, "es-2")
    assert patient.wait() == 0, patient


def test_a_file_that_is_read_only_here(
    root: None, sqlite: Commands, path: Path
) -> None:
    """A volume mounted wrongly would let a node start without its turn."""
    held(sqlite, "es-1")
    waiter = queued(sqlite, "es-2")
    folder = shlex.quote(str(path.parent))
    script = f"mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}"
    with by_way_of(sqlite, *mounting(script)) as there:
        hosts = there("hosts")
        lease = node(there, "acquire-lease", "es-3", "--acquire-timeout=200ms")
        lasting = node(there, "watch", "es-4", "--monitor-url=http://127.0.0.1:1")
        for command in hosts, lease:
            assert "the store refuses us: " in (said := failed(command, 69))
            assert "readonly" in said
        lasting.wait_said("readonly")
        assert stopped(lasting) == 0
    assert states(sqlite) == {"es-1": "held", "es-2": "waiting"}
    release(sqlite, "es-1")
    assert waiter.wait() == 0, waiter


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "all": lambda data, chance: chance.randbytes(len(data)),
    "header": lambda data, chance: chance.randbytes(100) + data[100:],
    "rest": lambda data, chance: data[:4096] + chance.randbytes(len(data) - 4096),
    "cut off": lambda data, chance: data[: chance.randrange(1, len(data) // 2)],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_corrupt(
    sqlite: Commands, path: Path, damage: str, chance: random.Random
) -> None:
    """A node would find no hosts and nobody ahead, and found a second cluster."""
    held(sqlite, "es-1")
    path.write_bytes(DAMAGES[damage](path.read_bytes(), chance))
    hosts = sqlite("hosts")
    lease = node(sqlite, "acquire-lease", "es-2")
    lasting = node(sqlite, "watch", "es-3", "--monitor-url=http://127.0.0.1:1")
    for command in hosts, lease:
        assert path.name in failed(command, 69)
    lasting.wait_said("the store refuses us")
    assert stopped(lasting) == 0


def test_a_file_that_is_deleted_during_a_wait(
    sqlite: Commands, path: Path, chance: random.Random
) -> None:
    """Some would queue in the old file and some in the new one, and start together."""
    held(sqlite, "es-1")
    waiters = {name: queued(sqlite, name) for name in ("es-2", "es-3")}
    time.sleep(chance.uniform(0, 0.2))
    for file in path, *chance.choice([(), [*path.parent.glob("store.db-*")]]):
        file.unlink()
    waiters["es-4"] = node(sqlite, "acquire-lease", "es-4")
    for name in "es-2", "es-3":
        waiters[name].wait_said("the file was replaced")
    wait_for("the new queue", lambda: len(states(sqlite)) == 3)
    for _ in range(3):
        (name, *others) = states(sqlite)
        assert waiters[name].wait() == 0, waiters[name]
        assert [waiters[name].code for name in others] == [None] * len(others)
        assert list(states(sqlite).values()) == ["held", *["waiting"] * len(others)]
        release(sqlite, name)
    assert states(sqlite) == {}


@pytest.fixture
def small(root: None, tmp_path: Path) -> Iterator[Path]:
    """Give a disk of one MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    with ExitStack() as stack:
        with uninterrupted():
            subprocess.run(mount, check=True)
            umount = ("umount", "--lazy", str(disk))
            stack.callback(subprocess.run, umount, check=True)
        yield disk


def test_a_full_disk(small: Path, label: str, chance: random.Random) -> None:
    """A log that fills the disk would end every start, or hand a turn out twice."""
    file, log, lease = small / "store.db", small / "log", 10
    with (
        Commands(f"sqlite://{file}", label) as run,
        closing(sqlite3.connect(file, isolation_level=None)) as reader,
    ):
        held(run, "es-0", f"--label={label}-other")
        held(run, "es-1", f"--lease-timeout={lease}s")
        waiter = queued(run, "es-2")
        reader.execute("SELECT * FROM records").fetchall()
        time.sleep(chance.uniform(0, 0.5))
        # As long as there is a reader, nobody makes room by ending the write-ahead log.
        with log.open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(bytes(4096))
        late = node(run, "acquire-lease", "es-3")
        given = run("release-lease", "--service-id=es-0", f"--label={label}-other")
        assert "disk is full" in failed(given, 69)
        for command in late, waiter:
            command.wait_said("disk is full")
        time.sleep(chance.uniform(0, 0.5))
        assert (waiter.code, late.code) == (None, None)
        log.unlink()
        assert waiter.wait() == 0, waiter  # nobody could delete es-1's
        late.wait_said("waiting, position")
        assert states(run) == {"es-2": "held", "es-3": "waiting"}
        release(run, "es-2")
        assert late.wait() == 0, late

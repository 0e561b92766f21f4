"""One SQLite file in containers that have a boot id or a clock of their own.

What systemd-nspawn, LXC and a restored container do to a process is done here with
`unshare`: a file bound over the boot id, and a time namespace.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.conftest import NEEDS_ROOT
from integration.support.commands import (
    Outcome,
    environment,
    error_of,
    finish,
    keys,
    wait_until,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.sqlite.store import SqliteStore

OURS = [sys.executable, "-m", "service_monitor"]
BOOT_ID = "/proc/sys/kernel/random/boot_id"
HOST: list[str] = []
TIME = ["unshare", "-T", "-f", "--kill-child", "--boottime"]

MAY = ["unshare", "-m", "-T", "true"]

pytestmark = pytest.mark.skipif(
    subprocess.run(MAY, stderr=subprocess.DEVNULL).returncode != 0,
    reason=f"{NEEDS_ROOT}, and unshare",
)


def mounted(command: str) -> list[str]:
    """Give what runs the words that follow after a line of shell with own mounts."""
    return ["unshare", "-m", "sh", "-ec", f'{command}; exec "$@"', "sh"]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, list[str]]:
    """Give what starts a process in each kind of container."""
    own = tmp_path / "boot_id"
    own.write_text(f"{uuid.uuid4()}\n")
    return {
        "own boot id": mounted(f"mount --bind {own} {BOOT_ID}"),
        "changing boot id": mounted(
            f"mount --bind {Path(BOOT_ID).parent}/uuid {BOOT_ID}"
        ),
        "no boot id": mounted("mount -t tmpfs none /proc/sys"),
        "clock ahead": [*TIME, "86400"],
        "clock behind": [*TIME, "-100"],
    }


PLACES = pytest.mark.parametrize(
    "kind",
    ["own boot id", "changing boot id", "no boot id", "clock ahead", "clock behind"],
)


@contextmanager
def running(
    place: list[str], path: Path, *argv: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*place, *OURS, *argv],
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(place: list[str], path: Path, *argv: str) -> Outcome:
    with running(place, path, *argv) as process:
        return finish(process)


def acquire(service_id: str, timeout: str = "1s") -> list[str]:
    ours = [f"--service-id={service_id}", "--host=h", f"--acquire-timeout={timeout}"]
    return ["acquire-lease", "--label=es", *ours]


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(str(path), Bounds())
    yield store
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.promise(1)
@PLACES
@pytest.mark.parametrize("first", ["inside", "outside"])
def test_containers_with_one_file_share_the_lease(
    path: Path,
    store: SqliteStore,
    places: dict[str, list[str]],
    kind: str,
    first: str,
) -> None:
    """Two nodes would have the lease, and each would found a cluster."""
    one, two = places[kind], HOST
    if first == "outside":
        one, two = two, one
    assert run(one, path, *acquire("es-1")).code == 0
    refused = run(two, path, *acquire("es-2"))
    assert refused.code == 1
    assert "held by es-1 (h)" in refused.err
    (held,) = store.list("").records
    assert 200 < store.time_left(held) <= 240
    released = run(two, path, "release-lease", "--label=es", "--service-id=es-1")
    assert "released the lease of es-1" in released.err
    assert run(two, path, *acquire("es-2")).code == 0
    assert run(one, path, "status", "--label=es").out.count("held") == 1


@pytest.mark.promise(2)
@PLACES
def test_a_waiter_elsewhere_keeps_its_place(
    path: Path, store: SqliteStore, places: dict[str, list[str]], kind: str
) -> None:
    """Each write of one container would delete the tickets of all others."""
    assert run(HOST, path, *acquire("es-1")).code == 0
    with running(places[kind], path, *acquire("es-2", "60s")) as waiter:
        wait_until(lambda: "es/lease/es-2" in keys(store))
        assert "position 2" in run(HOST, path, *acquire("es-3")).err
        assert keys(store) == ["es/lease/es-1", "es/lease/es-2"]
        run(HOST, path, "release-lease", "--label=es", "--service-id=es-1")
        assert finish(waiter).code == 0
    assert keys(store) == ["es/lease/es-2"]


def test_without_proc_the_machine_is_to_blame(path: Path) -> None:
    """It would be waited out like an outage, or end in a traceback."""
    for argv in ["hosts", "--label=es"], acquire("es-1", "60s"):
        outcome = run(mounted("mount -t tmpfs none /proc"), path, *argv)
        assert outcome.code == 71
        assert "no /proc here: a SQLite store needs it" in error_of(outcome)
    assert not path.exists()

"""The lease beside a command of `run`: kept, lost, or somebody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.support.commands import (
    Run,
    acquire,
    finish,
    is_up,
    keys,
    passing,
    register,
    wait_until,
)
from integration.support.run_script import HELD, SHOW, UP, RunScript
from service_monitor.recipes.lease import HOLDER_TTL
from service_monitor.stores.base import Store
from service_monitor.timing import now


def test_a_run_that_is_up_leaves_the_lease_of_the_next_alone(
    run: Run, store: Store, sound: RunScript, path: Path
) -> None:
    """Where redeploys overlap, the new start would lose its turn to the old one."""
    with sound("exec sleep 60") as old:
        wait_until(lambda: is_up(store, UP))
        wait_until(lambda: HELD not in keys(store))
        assert acquire(run, "es-1").code == 0
        time.sleep(1)
        assert HELD in keys(store)
        old.terminate()
        assert "this service holds the startup lease" not in finish(old).err
    assert passing(store) == [HELD]


@pytest.mark.promise(3)
def test_a_lease_is_kept_only_while_its_holder_lives(
    store: Store, booting: RunScript
) -> None:
    """A machine that dies while it boots would hold up all others for minutes."""
    script = "echo $$ >$SEEN; exec sleep 60"
    with booting(script, "--lease-timeout=1h") as running:
        wait_until(lambda: booting.said().endswith("\n"))
        (record,) = store.list(HELD).records
        wait_until(lambda: store.time_left(record) <= HOLDER_TTL - 8)
        wait_until(lambda: store.time_left(record) > HOLDER_TTL - 1)  # renewed
        os.kill(running.pid, signal.SIGKILL)
        os.kill(int(booting.said()), signal.SIGKILL)  # an orphan, as documented
        assert store.time_left(record) <= HOLDER_TTL


@pytest.mark.promise(3)
def test_the_lease_timeout_is_the_end_of_it(store: Store, booting: RunScript) -> None:
    """A node that never comes up would hold up all others for ever."""
    options = ("--lease-timeout=4s", "--on-lease-lost=continue")
    with booting("exec sleep 60", *options) as running:
        wait_until(lambda: HELD in keys(store))
        begun = now()
        wait_until(lambda: HELD not in keys(store))
        assert now() - begun < HOLDER_TTL / 2
        time.sleep(1)
        assert running.poll() is None
        running.terminate()
        outcome = finish(running)
    why = "--lease-timeout 4 s is over and the service was not up"
    lost = "the startup lease went before the service was up (connection refused): "
    assert outcome.err.count(lost) == 1
    assert f"{lost}{why}" in outcome.err
    assert "paused" not in outcome.err  # neither was
    assert "renewed" not in outcome.err


def test_who_founds_stops_with_its_lease(store: Store, booting: RunScript) -> None:
    """Two nodes would found a cluster each: the next one is told to found it, too."""
    with booting(f"{SHOW} exec sleep 60", "--lease-timeout=1s") as running:
        outcome = finish(running)
    assert "\n1 \n" in outcome.err
    assert outcome.code == 1
    assert keys(store) == []


def test_who_joins_goes_on_without_its_lease(store: Store, booting: RunScript) -> None:
    """A slow boot would be ended and begun again for ever, for no gain."""
    register(store, "es-0", "10.0.0.9")
    with booting(f"{SHOW} exec sleep 60", "--lease-timeout=2s") as running:
        wait_until(lambda: HELD in keys(store))
        wait_until(lambda: HELD not in keys(store))
        time.sleep(1)
        assert running.poll() is None
        running.terminate()
        outcome = finish(running)
    assert "\n0 10.0.0.9\n" in outcome.err
    assert outcome.code == 143


def test_a_founder_whose_store_hangs_stops_by_its_deadline(
    tmp_path: Path, store: Store, sound: RunScript
) -> None:
    """Cut off, it would found a cluster beside the one that the next node founds.

    It is up, but others cannot know of it.
    """
    sound.url = "tcp://127.0.0.1:1"
    lock = (
        "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1]); "
        "db.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(99)"
    )
    script = "trap 'date +%s.%N >>$SEEN; exit' TERM; echo up >$SEEN; sleep 60 & wait"
    with sound(script, "--lease-timeout=5s") as running:
        sound.wait_for("up")
        argv = [sys.executable, "-c", lock, str(sound.path)]
        (record,) = store.list(HELD).records
        end = time.time() + store.time_left(record)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as locker:
            try:
                assert locker.stdout
                assert locker.stdout.readline() == "locked\n"
                assert finish(running).code == 1
            finally:
                locker.kill()
    assert float(sound.said().split()[1]) < end + 1


def test_an_id_on_another_host_is_waited_for(
    store: Store, booting: RunScript, tmp_path: Path
) -> None:
    """Two machines with one service id would both boot as the first."""
    other = ("--host=10.0.0.2", "--acquire-timeout=1s", "--on-lease-timeout=start")
    with booting("echo first >$SEEN; exec sleep 60") as first:
        booting.wait_for("first")
        with booting("echo second >>$SEEN", *other) as second:
            outcome = finish(second)
        assert first.poll() is None
        assert booting.said() == "first\n"
        assert '"10.0.0.1"' in store.list(HELD).records[0].value
    assert outcome.code == 1
    why = "service id es-1 is in use on host 10.0.0.1, where it holds the lease: give "
    assert outcome.err.count(why) == 2  # once in the log, once in the error
    assert "service-monitor: label es: lease not acquired within 1 s" in outcome.err


def test_an_id_that_is_up_on_another_host_is_waited_for(
    store: Store, sound: RunScript
) -> None:
    """The second machine would take the first one's record over and boot beside it."""
    with sound("echo first >$SEEN; exec sleep 60") as first:
        wait_until(lambda: is_up(store, UP))
        wait_until(lambda: HELD not in keys(store))
        with sound("echo two >$SEEN", "--host=10.0.0.2", "--acquire-timeout=1s") as two:
            outcome = finish(two)
        assert outcome.code == 1
        assert "is in use on host 10.0.0.1, where it is registered as up" in outcome.err
        assert is_up(store, UP)
        assert passing(store) == [UP]
        assert first.poll() is None
    assert sound.said() == "first\n"


def test_who_starts_again_is_not_up_while_it_queues(
    run: Run, store: Store, sound: RunScript
) -> None:
    """After a crash of all nodes each would be told to join the others' ghosts."""
    register(store, "es-1", "10.0.0.1")
    assert acquire(run, "es-0").code == 0
    with sound("true") as running:
        wait_until(lambda: HELD in keys(store))
        assert not is_up(store, UP)
        assert run("hosts", "--label=es").out == "\n"
        running.terminate()
        finish(running)


def test_a_lost_lease_may_stop_the_command(store: Store, booting: RunScript) -> None:
    """Two nodes would boot at once although the operator forbade it."""
    register(store, "es-0", "10.0.0.9")
    options = ("--lease-timeout=1s", "--on-lease-lost=stop")
    with booting("exec sleep 60", *options) as running:
        outcome = finish(running)
    assert outcome.code == 1
    assert keys(store) == ["es/hosts/es-0"]


def test_a_lease_that_is_taken_away_is_lost(
    run: Run, store: Store, booting: RunScript
) -> None:
    """The command would go on booting beside the next one."""
    with booting("exec sleep 60", "--on-lease-lost=stop") as running:
        wait_until(lambda: HELD in keys(store))
        wait_until(lambda: '"held"' in store.list(HELD).records[0].value)
        argv = ("release-lease", "--label=es", "--service-id=es-1", "--force")
        assert run(*argv).code == 0
        assert finish(running).code == 1


def test_a_lease_that_cannot_be_renewed_is_lost(
    tmp_path: Path, store: Store, booting: RunScript
) -> None:
    """A node that is cut off would boot beside the next one."""
    options = ("--on-lease-lost=stop", "--lease-timeout=3s")
    with booting("echo started >$SEEN; exec sleep 60", *options) as running:
        wait_until(lambda: bool(booting.said()))
        booting.path.rename(tmp_path / "moved")
        booting.path.mkdir()
        outcome = finish(running)
    assert outcome.code == 1
    assert "went before the service was up (connection refused): not re" in outcome.err

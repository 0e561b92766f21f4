"""The fault matrix: our commands as PID 1."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from integration.faults.processes import Command, Commands, wait_for
from integration.matrix.scenes import (
    GOOD,
    SLACK,
    by_way_of,
    hears,
    held,
    node,
    states,
    stopped,
)
from integration.support.cli import CLI
from integration.support.loopback import (
    Serve,
)
from service_monitor.net.calls import STOP_GRACE
from service_monitor.recipes.lease import WAITER_TTL

pytestmark = pytest.mark.timeout(120, func_only=True)


PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *CLI)


def stopped_inside(
    command: Command, number: signal.Signals, delay: float
) -> tuple[int, float]:
    """Stop what runs as PID 1 below `command`; return its exit code and how long."""
    parent, found = psutil.Process(command.pid), list[psutil.Process]()

    def begun_or_ended() -> bool:
        found[:] = parent.children()
        return bool(found) or command.code is not None

    wait_for("PID 1", begun_or_ended)
    if not found:  # it had what it wanted before we looked
        return command.wait(), 0
    (inside,) = found
    wait_for("PID 1 to hear signals", lambda: hears(inside.pid))
    time.sleep(delay)
    begun = time.monotonic()
    code = stopped(command, number, inside.pid)
    assert not inside.is_running()
    return code, time.monotonic() - begun


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGWINCH),
    ],
)
def test_pid_1_is_stopped_at_any_moment(
    root: None,
    run: Commands,
    serve: Serve,
    chance: random.Random,
    number: signal.Signals,
) -> None:
    """A stopped container would take 10 s to die, and its ticket stay behind."""
    held(run, "es-0")
    with (
        by_way_of(run, *PID_1) as inside,
        Commands(run.store, f"{run.label}-free", PID_1) as run_free,
    ):
        url = f"--monitor-url={serve(GOOD).url}"
        commands = [
            node(inside, "acquire-lease", "es-1"),
            node(inside, "watch", "es-2", url),
            inside("hosts", "--wait=9"),
            node(run_free, "acquire-lease", "es-1"),
        ]
        moments = [chance.uniform(0, 1) for _ in commands]
        with ThreadPoolExecutor(len(commands)) as pool:
            numbers = [number] * len(commands)
            ended = list(pool.map(stopped_inside, commands, numbers, moments))
        queued, watch, hosts, free = (code for code, _ in ended)
        left = 128 + number
        assert (queued, hosts) == (left, left), commands
        # On a machine too slow to import all in time it ends as if it had not begun.
        assert watch == 0 or (watch, commands[1].stderr) == (left, ""), commands[1]
        assert free in (0, left), commands[3]
        # Nor is there then time for the store, and the records lapse.
        slow = any(seconds > STOP_GRACE for _, seconds in ended)
        patience = WAITER_TTL + SLACK if slow else 0
        granted = {} if free else {"es-1": "held"}
        wait_for("its end", lambda: states(run_free) == granted, patience)
        wait_for("their end", lambda: states(run) == {"es-0": "held"}, patience)
        wait_for("the watch's end", lambda: not states(run, "hosts"), patience)


def test_pid_1_collects_orphans_at_all_times(
    root: None, run: Commands, serve: Serve
) -> None:
    """What health checks and `docker exec` leave would fill the process table."""
    held(run, "es-0")
    with by_way_of(run, *PID_1) as inside:
        url = f"--monitor-url={serve(GOOD).url}"
        commands = [
            node(inside, "acquire-lease", "es-1"),
            node(inside, "watch", "es-2", url),
            node(inside, "run", "es-3", url, "--", "sleep", "60"),
            inside("hosts", "--wait=9"),
        ]
        for command in commands:
            leave_orphans(command)
            assert command.code is None, command


def leave_orphans(command: Command) -> None:
    """Leave PID 1 below a command some orphans, and wait until it has none left."""
    parent = psutil.Process(command.pid)
    wait_for("PID 1", parent.children)
    (first,) = parent.children()
    wait_for("its start", lambda: hears(first.pid))
    enter = ("nsenter", f"--target={first.pid}", "--pid", "--mount", "sh", "-c")
    for _ in range(5):
        subprocess.run([*enter, "(sleep 0.5 &)"], check=True)
    wait_for("the orphans", first.children)
    wait_for("their end", lambda: not first.children())

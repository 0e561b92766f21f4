"""Orphans that become ours, and children that are a library's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from integration.support.cli import CLI
from integration.support.commands import (
    WATCH,
    Run,
    acquire,
    by_python,
    ended,
    environment,
    started,
    wait_until,
)

ADOPT = """
import ctypes, os, sys
assert not ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
if os.fork() == 0:
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "600"])
    os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Gives a command an orphan as PID 1 gets them, and a child from before its `exec`."""


@pytest.mark.parametrize(
    "argv",
    [
        WATCH,
        ("acquire-lease", "--label=es", "--service-id=es-2"),
        ("run", *WATCH[1:], "--service-id=es-2", "--", "sleep", "60"),
        ("hosts", "--label=es", "--wait"),
    ],
    ids=lambda argv: argv[0],
)
def test_orphans_are_collected_at_all_times(
    run: Run, path: Path, argv: tuple[str, ...]
) -> None:
    """As PID 1 it would fill the process table with what health checks leave."""
    assert acquire(run, "es-1").code == 0
    cli = (*by_python(ADOPT), *CLI)
    with started(argv, environment(path), cli=cli) as running:
        ours = psutil.Process(running.pid)
        wait_until(lambda: [c.name() for c in ours.children()] == ["sleep"])
        ours.children()[0].kill()
        wait_until(lambda: not ours.children())
        assert running.poll() is None


def test_the_children_of_a_library_are_left_to_it(tmp_path: Path) -> None:
    """botocore would take the credentials of its helper for missing."""
    code = """
import os, subprocess, threading, time
from service_monitor.node.reaper import collect_orphans
def use():
    helper = subprocess.Popen(["sh", "-c", "exit 7"])
    time.sleep(0.5)
    os.kill(os.getpid(), 17)  # SIGCHLD to the main thread, as an orphan's end is
    time.sleep(0.2)
    os._exit(helper.wait())
threading.Thread(target=use).start()
collect_orphans()
"""
    outcome = ended((), environment(tmp_path / "db"), cli=by_python(code))
    assert outcome.code == 7

"""What the scenes of the fault matrix are made of: commands, and looks at the store."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from integration.faults.processes import Command, Commands, wait_for
from integration.support.cli import CLI
from integration.support.loopback import (
    answering,
    status,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.opening import open_store

SLACK = 10.0
"""Seconds on top of a promised time, for a machine that is busy."""
STOPPED = 6.0
"""Seconds from a signal to the end, which are promised to be 2; a bound."""
LEASE = 2.0
"""Seconds after which a holder that died lets the next one in."""


def by_way_of(run: Commands, *cli: str) -> Commands:
    """Start commands on the same store and label so, in place of the plain CLI."""
    return Commands(run.store, run.label, cli)


def mounting(script: str) -> tuple[str, ...]:
    """Give a CLI that sees mounts of its own, made by a shell script."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *CLI)


def node(run: Commands, command: str, name: str, *options: str) -> Command:
    return run(command, f"--service-id={name}", f"--host={name}", *options)


def held(run: Commands, name: str, *options: str) -> Command:
    """Acquire the lease, which must be free."""
    command = node(run, "acquire-lease", name, *options)
    assert command.wait() == 0, command
    return command


def queued(run: Commands, name: str, *options: str) -> Command:
    """Start a waiter and return once it has seen its place."""
    command = node(run, "acquire-lease", name, *options)
    command.wait_said("waiting, position")
    return command


def release(run: Commands, name: str) -> None:
    command = run("release-lease", f"--service-id={name}")
    assert command.wait() == 0, command


def listed(run: Commands) -> str:
    command = run("hosts")
    assert command.wait() == 0, command
    return command.stdout.strip()


def failed(command: Command, code: int) -> str:
    """Wait for its failure; return the one line that tells the user why."""
    assert command.wait() == code, command
    assert command.stdout == "", command
    *log, line = command.stderr.splitlines()
    assert line.startswith("service-monitor: "), command
    assert not any(line.startswith(("Traceback", " ")) for line in log), command
    return line


def hears(pid: int) -> bool:
    """Tell whether a command has begun to take signals in order, not by default."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended by itself
        return True
    blocked = int(text.partition("SigBlk:")[2].split()[0], 16)
    ours = not text.startswith("Name:\tunshare")
    return ours and bool(blocked >> (signal.SIGTERM - 1) & 1)


def stopped(
    command: Command,
    number: signal.Signals = signal.SIGTERM,
    pid: int = 0,
) -> int:
    """Ask it to end, which must not take long; return its exit code."""
    pid = pid or command.pid
    wait_for(f"{command.name} to hear signals", lambda: hears(pid))
    begun = time.monotonic()
    with suppress(ProcessLookupError):  # it had what it wanted
        os.kill(pid, number)
    code = command.wait()
    assert time.monotonic() - begun < STOPPED, command
    return code


def stored(run: Commands, kind: str = "lease") -> dict[str, dict[str, Any]]:
    """Return the label's records by service id, oldest first."""
    with closing(open_store(run.store, Bounds(), {})) as store:
        records = store.list(f"{run.label.lower()}/{kind}/").records
    return {
        record.key.rpartition("/")[2]: json.loads(record.value) for record in records
    }


def states(run: Commands, kind: str = "lease") -> dict[str, str]:
    return {name: record["state"] for name, record in stored(run, kind).items()}


GOOD, BAD = answering(status("200 OK")), answering(status("503 Not Yet"))

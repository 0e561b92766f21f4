"""Run the commands, in this process or in one of their own, and look at the store."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from integration.support.cli import CLI, clean_environment
from service_monitor.cli.app import cli
from service_monitor.records import Registration, hosts_prefix, key_parts
from service_monitor.stores.base import Store
from service_monitor.timing import now

HANG = 20.0
"""Seconds after which something counts as hung; a bound, not a measurement."""
COMMANDS = {name: cli.commands[name] for name in sorted(cli.commands)}
WATCH = ("watch", "--label=es", "--monitor-url=http://127.0.0.1:1")


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def environment(path: Path, **more: str) -> dict[str, str]:
    """Give the environment of a command whose store is this file."""
    return clean_environment(**{"SERVICE_MONITOR_STORE": f"sqlite://{path}"} | more)


@contextmanager
def started(
    argv: Sequence[str | bytes],
    env: Mapping[str, str],
    *,
    cli: Sequence[str] = CLI,
    **settings: object,
) -> Iterator[subprocess.Popen[str]]:
    """Start a command as a process of its own, and never leave it behind.

    `cli` is what comes before its name; `settings` are those of Popen.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen([*cli, *argv], env=env, **pipes | settings)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        for process in _below(running.pid) if running.poll() is None else []:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        running.kill()
        running.communicate()


def _below(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def finish(running: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a command."""
    out, err = running.communicate(timeout=HANG)
    return Outcome(running.returncode, out, err)


def ended(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    cli: Sequence[str] = CLI,
    **how: object,
) -> Outcome:
    """Run a command as a process, to its end; see `started`."""
    with started(argv, env, cli=cli, **how) as running:
        return finish(running)


def by_shell(line: str) -> tuple[str, ...]:
    """Give a CLI that a line of shell starts, where "$@" stands for it."""
    return ("sh", "-ec", line, "sh", *CLI)


def by_python(program: str) -> tuple[str, ...]:
    """Give a CLI that is a program of a few lines, in the place of ours."""
    return (sys.executable, "-c", program)


def wait_until(holds: Callable[[], object], seconds: float = HANG) -> None:
    """Look every 20 ms until it holds; fail after `seconds`."""
    deadline = now() + seconds
    while not holds():
        assert now() < deadline, "never came to be"
        time.sleep(0.02)


def register(
    store: Store, name: str, host: str, state: str = "up", reason: str = "200 OK"
) -> None:
    value = Registration(name, host, state, reason, "n")  # type: ignore[arg-type]
    store.create(hosts_prefix("es") + name, value.to_json(), 60)


def registration(store: Store, key: str) -> Registration | None:
    records = store.list(key).records
    return Registration.from_json(records[0].value) if records else None


def is_up(store: Store, key: str) -> bool:
    found = registration(store, key)
    return found is not None and found.up


def keys(store: Store) -> list[str]:
    return [record.key for record in store.list("").records]


def passing(store: Store) -> list[str]:
    """Give the keys of what is to go with its process: of all but members."""
    return [key for key in keys(store) if key_parts(key)[1] != "members"]


def error_of(outcome: Outcome) -> str:
    """Return the one line of an error, after what every error must be like."""
    assert outcome.out == ""
    assert outcome.err.endswith("\n")
    line = outcome.err[:-1]
    assert line.isprintable(), line
    assert line.startswith("service-monitor: ")
    assert len(line) < 1100
    assert "s3" not in line
    assert "cret" not in line
    return line.removeprefix("service-monitor: ")


def acquire(run: Run, name: str, *argv: str) -> Outcome:
    return run("acquire-lease", "--label=es", f"--service-id={name}", *argv)

"""Our own commands as real processes, and what can happen to them.

with Commands(cluster.url, "es") as run:
    waiter = run("acquire-lease", "--service-id=es-1", "--print-token")
    waiter.stop()
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from integration.support.cli import ending, environment
from integration.support.interrupts import uninterrupted

CLI = (sys.executable, "-m", "service_monitor")
HANG = 60.0  # seconds until a command that should have ended counts as hung


class Hung(AssertionError):
    """A command, or what was waited for, took too long; shows what it had said."""


class Command:
    """One process of the CLI; all that it says is kept. Times are time.monotonic()."""

    def __init__(self, name: str, *options: str, cli: Sequence[str] = CLI) -> None:
        self.name = name
        self.options = options
        self._out, self._err = (os.memfd_create(name) for name in ("out", "err"))
        self._said: tuple[str, str] | None = None  # once it has ended
        self.ended: float | None = None
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [*cli, name, *options],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={k: v for k, v in environment().items() if k[:8] != "ETCDCTL_"},
            process_group=0,  # Ctrl-C is for us, who then end it in order
        )
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        code = self.code
        how = "is running" if code is None else ending(code)
        return f"{self.name} {' '.join(self.options)} {how}; it said:\n{self.stderr}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return the exit code, -N after signal N, None while it runs."""
        with self._lock:
            code = self._process.poll()
            if code is not None and self._said is None:
                self.ended = time.monotonic()
                self._said = _content(self._out), _content(self._err)
                os.close(self._out)
                os.close(self._err)
            return code

    @property
    def stdout(self) -> str:
        """Return what it has printed so far."""
        with self._lock:
            return self._said[0] if self._said else _content(self._out)

    @property
    def stderr(self) -> str:
        """Return what it has logged so far."""
        with self._lock:
            return self._said[1] if self._said else _content(self._err)

    def kill(self) -> None:
        """End it at once, as kill -9 or a power cut does."""
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """Freeze it: it stands still without knowing."""
        self._send(signal.SIGSTOP)

    def cont(self) -> None:
        """Let a frozen one go on."""
        self._send(signal.SIGCONT)

    def term(self) -> None:
        """Ask it to end, as `systemctl stop` does."""
        self._send(signal.SIGTERM)

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self._send(signal.SIGINT)

    def wait(self, timeout: float = HANG) -> int:
        """Wait for its end and return the exit code; raise `Hung` after `timeout`."""
        if self.code is None:
            try:
                with contextlib.suppress(ProcessLookupError):  # `code` reaped it
                    self._wait(timeout)
            except OSError:  # a kernel without pidfd
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout)
        code = self.code
        if code is None:
            raise Hung(f"no end within {timeout:g} s: {self}")
        return code

    def wait_said(self, text: str, timeout: float = HANG) -> None:
        """Wait until its log contains this; raise `Hung` if it ends without it."""

        def said() -> bool:
            over = self.code is not None
            if text in self.stderr:
                return True
            if over:
                raise Hung(f"never said {text!r}: {self}")
            return False

        wait_for(f"{text!r} of {self.name}", said, timeout)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill()
        self.wait()

    def _wait(self, timeout: float) -> None:
        # Popen.wait polls, up to 50 ms late: too late for a history of hand-overs.
        descriptor = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(max(0.0, timeout) * 1000)
        finally:
            os.close(descriptor)

    def _send(self, number: signal.Signals) -> None:
        with self._lock:
            self._process.send_signal(number)


class Commands:
    """Starts commands on one store and label; leaving it kills those still running.

    `cli` is what comes before a command's name.
    """

    def __init__(self, store: str, label: str, cli: Sequence[str] = CLI) -> None:
        self.store = store
        self.label = label
        self.cli = cli
        self.started: list[Command] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for command in self.started:
            command.kill()
        for command in self.started:
            command.close()

    def __call__(self, name: str, *options: str, store: str | None = None) -> Command:
        """Start a command with --label and --store filled in."""
        where = (f"--label={self.label}", f"--store={store or self.store}")
        with self._lock, uninterrupted():
            self.started.append(Command(name, *where, *options, cli=self.cli))
            return self.started[-1]


def wait_for(what: str, holds: Callable[[], object], timeout: float = HANG) -> float:
    """Wait until something holds; return the seconds it took, or raise `Hung`."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > timeout:
            raise Hung(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def _content(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

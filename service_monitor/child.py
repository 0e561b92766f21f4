"""A command as our child: started with clean signals, in a process group of its own,
reaped, and stopped with all that it started."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from service_monitor.calls import Stop
from service_monitor.errors import CannotStart
from service_monitor.lacks import lack_in, no_thread
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

FORWARDED = (
    *(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that are the command's alone. SIGTERM and SIGINT reach it after we have
deregistered; the others are the kernel's, or job control."""

KILL_WAIT = 2.0
"""Seconds for the kernel to end what was sent SIGKILL; a dead disk may hold that up."""

_POLL = 0.05


class Child:
    """A running command; its exit calls `ended` with the code, from a thread."""

    def __init__(
        self,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        ended: Callable[[int], None],
    ) -> None:
        self._ended = ended
        self._code: int | None = None
        self._name = argv[0]
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no exit could be seen
        try:
            # As if started by a shell: Python ignores two signals, we block two more.
            self._pid = os.posix_spawnp(
                argv[0],
                argv,
                environ,
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            raise lack_in(error) or CannotStart(argv[0], error) from error
        for number in FORWARDED:
            signal.signal(number, lambda received, _: self.send(received))
        try:
            threading.Thread(target=self._reap, daemon=True).start()
        except RuntimeError as error:  # at the limit of processes
            self.send(signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise no_thread() from error

    @property
    def code(self) -> int | None:
        """Return its exit code, 128 plus the signal's number; None while it runs."""
        return self._code

    def send(self, number: int) -> None:
        """Send a signal to its process group, if there is anything left of that."""
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:  # it is another user by now
            log.warning("cannot send signal %d to %s: %s", number, self._name, error)

    def stop(self, number: int, timeout: float, stop: Stop) -> None:
        """Send a signal, and SIGKILL to what is left after `timeout` seconds; block.

        A signal to us in the meantime goes on to it.
        """
        self.send(number)
        if not self.wait(timeout, stop):
            log.warning(
                "%s still runs %s after signal %d: killing it",
                self._name,
                format_duration(timeout),
                number,
            )
            self.send(signal.SIGKILL)
            if not self.wait(KILL_WAIT, stop):
                log.error("%s survives SIGKILL: left behind", self._name)

    def wait(self, seconds: float, stop: Stop) -> bool:
        """Wait until its whole group is gone; return whether it is."""
        deadline = now() + seconds
        while not self._gone() and (left := deadline - now()) > 0:
            stop.wait(min(_POLL, left))
            if stop.requested:
                stop.resume()
                self.send(stop.signal or signal.SIGTERM)
        return self._gone()

    def _gone(self) -> bool:
        """Tell whether nothing of its group runs; a zombie is for somebody to reap."""
        if self._code is None:
            return False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self._pid and state not in "ZX":
                    return False
        return True

    def _reap(self) -> None:
        """Collect its exit; as PID 1 that of every orphan too, as nobody else does."""
        whom = -1 if os.getpid() == 1 else self._pid
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(whom, 0)
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = 128 - code if code < 0 else code
                    self._ended(self._code)

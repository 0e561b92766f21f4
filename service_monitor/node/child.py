"""COMMAND as our child: started with clean signals, watched, stopped as a group."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from service_monitor.errors import CannotStart, LocalLack
from service_monitor.net.lacks import lack_in, start_thread
from service_monitor.net.stop import Stop
from service_monitor.node.executable import MISSING, REFUSED, find
from service_monitor.node.signals import for_command
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

KILL_WAIT = 2.0
"""Seconds for the kernel to end what was sent SIGKILL; a dead disk may hold that up."""

_POLL = 0.05
"""Seconds between two looks whether its process group is gone."""
_STILL: dict[int, str] = {
    number: signal.Signals(number).name
    for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
}


class Child:
    """A running command; a thread calls `ended` with its exit code when it has ended.

    It stays a zombie until `stop` has ended its process group. Until then no other
    process can get its number, so no signal of ours reaches a stranger.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        ended: Callable[[int], None],
        *,
        alone: bool = False,
    ) -> None:
        """Start it; with `alone` signals are for it, not for all that it started.

        Raises `CannotStart` and `LocalLack`; then nothing of it runs.
        """
        self._ended = ended
        self._alone = alone
        self._code: int | None = None
        self._name = argv[0]
        self._lock = threading.Lock()
        self._collected = False
        try:
            # Whatever our parent, Python or we ourselves have set is not for it.
            self._pid = os.posix_spawn(
                find(argv[0]),
                argv,
                environ,
                setpgroup=0,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except OSError as error:
            if lack := lack_in(error):
                raise lack from error
            find(argv[0])  # it may have changed just now
            code = MISSING if isinstance(error, FileNotFoundError) else REFUSED
            raise CannotStart(argv[0], str(error.strerror), code) from error
        try:
            start_thread(self._watch)
        except LocalLack:
            self.kill()
            os.waitpid(self._pid, 0)
            raise

    @property
    def code(self) -> int | None:
        """Return its exit code, or 128 plus the number of the signal that ended it.

        None while it runs.
        """
        return self._code

    def send(self, number: int) -> bool:
        """Send a signal to it, or to its whole group; return whether it still runs."""
        if self._code is not None:
            return False
        self._signal(number, self._alone)
        return True

    def kill(self) -> None:
        """Send SIGKILL to all that is left of its process group."""
        self._signal(signal.SIGKILL)

    def stop(self, number: int, timeout: float, stop: Stop) -> None:
        """Send a signal, and SIGKILL to what is left after `timeout` seconds.

        Blocks until its process group is gone, or `timeout` and `KILL_WAIT` seconds are
        over. A stop that is requested in the meantime is passed on to it.
        """
        if not self._gone():
            self._send_stop(number)
        if not self._wait(timeout, stop):
            log.warning(
                "%s still runs %s after signal %d: killing it",
                self._name,
                format_duration(timeout),
                number,
            )
            self.kill()
            if not self._wait(KILL_WAIT, stop):
                log.error("%s survives SIGKILL: left behind", self._name)
                return
        with self._lock:
            self._collected = True
            os.waitpid(self._pid, 0)

    def _send_stop(self, number: int) -> None:
        """Send a stop signal, and let go on what stands still: it could not obey."""
        if not self._alone:
            self._signal(number)
        elif self._code is None:
            self._signal(number, alone=True)
        self._signal(signal.SIGCONT)

    def _signal(self, number: int, alone: bool = False) -> None:
        with self._lock:
            if self._collected:
                return
            try:
                (os.kill if alone else os.killpg)(self._pid, number)
            except ProcessLookupError:
                pass
            except PermissionError as error:  # it is another user by now
                log.warning(
                    "cannot send signal %d to %s: %s", number, self._name, error
                )

    def _wait(self, seconds: float, stop: Stop) -> bool:
        """Wait until its whole group is gone; return whether it is."""
        deadline = now() + seconds
        while not self._gone() and (left := deadline - now()) > 0:
            stop.wait(min(_POLL, left))
            if stop.requested:
                stop.resume()
                self._send_stop(for_command(stop.signal))
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

    def _watch(self) -> None:
        """Wait for its exit, without collecting it, and tell when it stands still."""
        changes = os.WEXITED | os.WSTOPPED
        while found := os.waitid(os.P_PID, self._pid, changes | os.WNOWAIT):
            if found.si_code not in (os.CLD_STOPPED, os.CLD_TRAPPED):
                break
            if os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG):
                self._log_standstill(found.si_status)
        assert found
        exited = found.si_code == os.CLD_EXITED
        self._code = found.si_status if exited else 128 + found.si_status
        self._ended(self._code)

    def _log_standstill(self, number: int) -> None:
        why = _STILL.get(number, f"signal {number}")
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            why += ", as it uses the terminal, and is in the background of that"
        log.warning(
            "%s stands still (%s): kill -CONT %d lets it go on",
            self._name,
            why,
            self._pid,
        )

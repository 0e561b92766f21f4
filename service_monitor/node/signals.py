"""Which signals are a stop, and which are COMMAND's own business while it runs.

Imports nothing slow: a signal may come while the rest is being imported.
"""

from __future__ import annotations

import signal
import time

from service_monitor.node.leaving import leave

TYPE_CHECKING = False  # `typing` is slow, too
if TYPE_CHECKING:
    from service_monitor.net.stop import Stop
    from service_monitor.node.ending import Ending

STOPS = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGPWR, signal.SIGRTMIN + 3),  # stop an OS container: LXC, systemd
        # They end a process by default, and tell of no fault in it.
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU),
        *(signal.SIGIO, signal.SIGSTKFLT),
    }
)
"""A stop, always."""
PASSED_ON = frozenset(
    {
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
    - STOPS
)
"""COMMAND's own while it runs, as a rule to reload. A stop while nothing runs: an image
may have one of them as its STOPSIGNAL, and PID 1 would ignore it until SIGKILL."""


def block() -> frozenset[int]:
    """Block all signals that `obey` takes, for this thread and those that it starts.

    Return them. So none can strike between two lines of the code that cleans up, nor
    between the start of COMMAND and that of its care; and they work for PID 1, which
    has no default actions. They count where a parent ignored or blocked them, as a
    shell does with SIGINT of what it starts by `&`. But SIGHUP stays ignored where it
    was: `nohup`.
    """
    heeded = set(STOPS | PASSED_ON)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        heeded.remove(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_SETMASK, heeded)
    for number in heeded:
        signal.signal(number, signal.SIG_DFL)
    return frozenset(heeded)


def obey(stop: Stop, ending: Ending, heeded: frozenset[int]) -> None:
    """Take the blocked signals; end the process if a stop takes too long.

    Never returns: it is for a thread of its own. A stop becomes a request to `stop`,
    and each later one another; COMMAND is sent what is its own business.
    """
    first, end = 0, float("inf")
    while not first or time.monotonic() < end:
        if first:
            taken = signal.sigtimedwait(heeded, max(0.0, end - time.monotonic()))
        else:
            taken = signal.sigwaitinfo(heeded)
        if taken is None or not _is_stop(taken, ending):
            continue
        stop.request(taken.si_signo)
        if not first:
            # Only what is not ours takes that long: a full pipe, a dead disk.
            first, end = taken.si_signo, time.monotonic() + ending.forced_after
    ending.last_act()
    leave(128 + first)


def _is_stop(taken: signal.struct_siginfo, ending: Ending) -> bool:
    """Tell whether a signal is a stop; send COMMAND what is its own business."""
    number = taken.si_signo
    # From the kernel itself, and not by kill: a window was resized.
    resized = number == signal.SIGWINCH and taken.si_code > 0
    if number in STOPS or number == ending.also_stops:
        return not resized
    return not (ending.to_command(number) or resized)


def for_command(number: int | None) -> int:
    """Return the signal that ends COMMAND after signal `number`, or none, ended us.

    SIGTERM in place of SIGHUP, which many services take for a reload.
    """
    return signal.SIGTERM if number in (None, signal.SIGHUP) else number

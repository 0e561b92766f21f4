"""Bounded calls: one deadline for a whole blocking call, whatever it blocks in.

A socket timeout bounds each read, not the call: a server that drips a byte a second, or
a resolver that hangs, is bounded by neither (measured: `requests` with `timeout=2`
reads a dripping header for ever, a dead DNS server costs 10 s). So the call runs in a
thread of its own, and at the deadline its sockets are shut down under it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

from service_monitor.net.lacks import lack_in, start_thread
from service_monitor.net.sockets import Sockets
from service_monitor.net.stop import Stop
from service_monitor.timing import now

T = TypeVar("T")

STOP_GRACE = 1.7
"""Seconds that all calls together may still take once the stop was requested: with what
the process itself needs, SIGTERM ends it within 2."""
IN_FLIGHT = 0.5
"""Seconds of these for a call that was under way then; the rest is for undoing it."""


class Bounds:
    """How long blocking calls may take: by the stop, and by the scope they are in.

    Once the stop was requested all calls together have `grace` seconds left. A scope
    bounds the calls of the thread that opened it, and of threads started in it.
    """

    def __init__(self, stop: Stop | None = None, grace: float = STOP_GRACE) -> None:
        self.stop = stop or Stop()
        self._grace = grace
        # Contexts keep such variables for ever: a process makes one of these.
        self._end = ContextVar("end", default=math.inf)
        self._last_end = ContextVar("last_end", default=math.inf)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let no call in this scope go on for more than `seconds` from now.

        In a scope within another one the nearer end counts.
        """
        end = min(self._end.get(), now() + seconds)
        with self._until(end):
            yield

    @contextmanager
    def within_one_call(self, seconds: float) -> Iterator[None]:
        """Open a scope for one call of many, which `within_the_last` leaves aside."""
        before = self._end.set(min(self._end.get(), now() + seconds))
        try:
            yield
        finally:
            self._end.reset(before)

    @contextmanager
    def within_the_last(self) -> Iterator[None]:
        """Open a scope that ends when the one should have that this thread left last.

        So what closes the store after a command shares the seconds of what undid the
        command. It does not bound anything where there was no scope.
        """
        with self._until(min(self._end.get(), self._last_end.get())):
            yield

    @contextmanager
    def _until(self, end: float) -> Iterator[None]:
        before = self._end.set(end)
        try:
            yield
        finally:
            self._end.reset(before)
            self._last_end.set(end)

    def time_left(self) -> float:
        """Return the seconds that calls of this thread may still take, maybe below 0;
        infinity if nothing bounds them."""
        at = self.stop.requested_at
        grace = math.inf if at is None else at + self._grace
        return min(self._end.get(), grace) - now()

    def in_flight_left(self) -> float:
        """Return the seconds that a call begun before the stop may still take."""
        at = self.stop.requested_at
        return math.inf if at is None else at + IN_FLIGHT - now()


class _Call(Generic[T]):
    """A function running in a thread of its own, and the sockets that it uses."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._sockets = Sockets()
        self._result: T
        self._error: BaseException | None = None
        self.finished = False
        self.wake = threading.Event()
        start_thread(self._run)

    def _run(self) -> None:
        self._sockets.collect()
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self._sockets.let_go()
        self.finished = True
        self.wake.set()

    def abort(self) -> None:
        """Shut the call's sockets down, those still to be opened included."""
        self._sockets.shut()

    def result(self) -> T:
        """Return what the function returned, or raise what it raised."""
        if self._error is not None:
            # Here, since each library wraps it in a way of its own.
            if lack := lack_in(self._error):
                raise lack from self._error
            raise self._error
        return self._result


def bounded(
    function: Callable[[], T], seconds: float, bounds: Bounds, *, waits: bool = False
) -> T:
    """Run `function` for at most `seconds`, whatever it blocks in.

    Raises TimeoutError at the deadline, `LocalLack` if this machine has no thread for
    it or it failed for want of files or memory, and `Stopped` when the stop was
    requested: at once if the function only `waits`, else after `IN_FLIGHT` or, if it
    began after the request, what is left of `STOP_GRACE`: a write on its way can be
    learned of, and there is time to undo it.
    """
    stop, deadline = bounds.stop, now() + seconds
    over = bounds.time_left() <= 0
    if waits or over:
        stop.check()
    if over:
        raise TimeoutError("no answer in time")
    cleaning_up = stop.requested
    call = _Call(function)
    while not call.finished:
        left = min(deadline - now(), bounds.time_left())
        if not cleaning_up:
            left = min(left, bounds.in_flight_left())
        if left <= 0 or (waits and stop.requested):
            call.abort()
            if waits or deadline > now():  # else another endpoint may be tried
                stop.check()
            raise TimeoutError("no answer in time")
        if stop.requested:
            call.wake.wait(left)
        else:
            stop.wait(left, call.wake)
        if not call.finished:
            call.wake.clear()
    return call.result()

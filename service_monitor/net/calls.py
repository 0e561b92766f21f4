"""One deadline for a whole blocking call, and one way to ask the process to stop.

A socket timeout bounds each read, not the call: a server that drips a byte a second, or
a resolver that hangs, is bounded by neither (measured: `requests` with `timeout=2`
reads a dripping header for ever, a dead DNS server costs 10 s). So the call runs in a
thread of its own, and at the deadline its sockets are shut down under it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from service_monitor.errors import Stopped
from service_monitor.net.lacks import lack_in, start_thread
from service_monitor.timing import now

T = TypeVar("T")

STOP_GRACE = 1.7
"""Seconds that all calls together may still take once the stop was requested: with what
the process itself needs, SIGTERM ends it within 2."""
IN_FLIGHT = 0.5
"""Seconds of these for a call that was under way then; the rest is for undoing it."""


class Stop:
    """A request to end, by a signal or a test; and the command's own deadline.

    No bounded call outlasts either: after `limit` seconds they time out, and once the
    end was requested they have `STOP_GRACE` seconds left together.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.signals = 0
        self.patience = STOP_GRACE + 1
        """Seconds after a signal until the process is ended by force."""
        self.last_act: Callable[[], None] = lambda: None
        """What is done just before that."""
        self.pass_on: Callable[[int], bool] = lambda _: False
        """Takes a signal that is COMMAND's own; tells whether COMMAND runs."""
        self.leave: Callable[[int], None] = lambda code: None
        """Ends the process with an exit code, where it is one of its own."""
        self.also: int | None = None
        """One of those that is to be a stop all the same."""
        self._deadline = float("inf")
        self._at: float | None = None
        self._lock = threading.Lock()
        self._wakers: set[threading.Event] = set()

    def request(self, signal: int | None = None) -> None:
        """Ask for the end; the first request counts, later ones change nothing."""
        with self._lock:
            self.signals += signal is not None
            if self._at is None:
                self.signal, self._at = signal, now()
            for waker in self._wakers:
                waker.set()

    @property
    def requested(self) -> bool:
        """Tell whether the end was asked for."""
        return self._at is not None

    def check(self) -> None:
        """Raise `Stopped` if the end was asked for."""
        if self.requested:
            raise Stopped("stopped by a signal")

    def resume(self) -> None:
        """Let calls go on after the request was obeyed; the next one counts anew."""
        with self._lock:
            self._at, self._deadline = None, float("inf")

    def limit(self, seconds: float) -> None:
        """Let no call go on for more than `seconds` from now."""
        self._deadline = now() + seconds

    def time_left(self) -> float:
        """Return the seconds that calls may still take."""
        grace = float("inf") if self._at is None else self._at + STOP_GRACE
        return min(self._deadline, grace) - now()

    def in_flight_left(self) -> float:
        """Return the seconds that a call begun before the request may still take."""
        return float("inf") if self._at is None else self._at + IN_FLIGHT - now()

    def wait(self, seconds: float, waker: threading.Event | None = None) -> None:
        """Sleep up to `seconds`, or until the request or until `waker` is set."""
        waker = waker or threading.Event()
        with self._lock:
            if self._at is not None:
                return
            self._wakers.add(waker)
        try:
            waker.wait(max(0.0, seconds))
        finally:
            with self._lock:
                self._wakers.discard(waker)


class _Call(Generic[T]):
    """A function running in its thread, and the sockets it uses."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._breakers: list[socket.socket] = []
        self._aborted = False
        self._result: T
        self._error: BaseException | None = None
        self.finished = False
        self.wake = threading.Event()
        start_thread(self._run)

    def _run(self) -> None:
        _current.call = self
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        with self._lock:
            for breaker in self._breakers:
                breaker.close()
            self._breakers.clear()
        self.finished = True
        self.wake.set()

    def adopt(self, sock: socket.socket) -> None:
        """Make `sock` go down with the call.

        A duplicate is kept, since TLS and a response that outlives its connection both
        take the socket object away while the connection stays the same.
        """
        try:
            breaker = socket.socket(fileno=os.dup(sock.fileno()))
        except OSError:  # no file left: who called may not come to close it
            sock.close()
            raise
        with self._lock:
            self._breakers.append(breaker)
            if self._aborted:
                _shut(breaker)

    def abort(self) -> None:
        """Shut the call's sockets down, those still to be opened included."""
        with self._lock:
            self._aborted = True
            for breaker in self._breakers:
                _shut(breaker)

    def result(self) -> T:
        if self._error is not None:
            # Here, since each library wraps it in a way of its own.
            if lack := lack_in(self._error):
                raise lack from self._error
            raise self._error
        return self._result


_current = threading.local()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected yet, or already gone: nothing to shut
        sock.shutdown(socket.SHUT_RDWR)


def adopt(sock: socket.socket) -> None:
    """Tie `sock` to the bounded call that this thread is running, if it is one."""
    call = getattr(_current, "call", None)
    if call is not None:
        call.adopt(sock)


def bounded(
    function: Callable[[], T], seconds: float, stop: Stop, *, waits: bool = False
) -> T:
    """Run `function` for at most `seconds`, whatever it blocks in.

    Raises TimeoutError at the deadline, `LocalLack` if this machine has no thread for
    it or it failed for want of files or memory, and `Stopped` when the stop was
    requested: at once if the function only `waits`, else after `IN_FLIGHT` or, if it
    began after the request, what is left of `STOP_GRACE`: a write on its way can be
    learned of, and there is time to undo it.
    """
    deadline = now() + seconds
    over = stop.time_left() <= 0
    if waits or over:
        stop.check()
    if over:
        raise TimeoutError("no answer in time")
    cleaning_up = stop.requested
    call = _Call(function)
    while not call.finished:
        left = min(deadline - now(), stop.time_left())
        if not cleaning_up:
            left = min(left, stop.in_flight_left())
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

"""A request to end: by a signal or a test, seen by every thread that sleeps or asks."""

from __future__ import annotations

import threading

from service_monitor.errors import Stopped
from service_monitor.timing import now


class Stop:
    """Whether the end was asked for, and since when; nothing is ended here."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that asked for the end; None if it was not a signal."""
        self.signals = 0
        """How many signals asked for it, those after the first included."""
        self.requested_at: float | None = None
        """When the end was asked for, on the clock of `timing.now`; None if it was
        not."""
        self._lock = threading.Lock()
        self._wakers: set[threading.Event] = set()

    def request(self, signal: int | None = None) -> None:
        """Ask for the end; the first request counts, later ones change nothing."""
        with self._lock:
            self.signals += signal is not None
            if self.requested_at is None:
                self.signal, self.requested_at = signal, now()
            for waker in self._wakers:
                waker.set()

    @property
    def requested(self) -> bool:
        """Tell whether the end was asked for."""
        return self.requested_at is not None

    def check(self) -> None:
        """Raise `Stopped` if the end was asked for."""
        if self.requested:
            raise Stopped("stopped by a signal")

    def resume(self) -> None:
        """Forget the request, as it was obeyed; the next one counts as a first one."""
        with self._lock:
            self.requested_at = None

    def wait(self, seconds: float, waker: threading.Event | None = None) -> None:
        """Sleep up to `seconds`, or until the request or until `waker` is set."""
        waker = waker or threading.Event()
        with self._lock:
            if self.requested:
                return
            self._wakers.add(waker)
        try:
            waker.wait(max(0.0, seconds))
        finally:
            with self._lock:
                self._wakers.discard(waker)

"""What time it is for DynamoDB, by the Date headers of its answers.

No wall clock of this machine is read. One answer tells the store's time to a second and
the round trip; each further one narrows that down. Whoever compares times takes the
bound that errs on the safe side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from service_monitor.timing import now

SERVERS = 0.1
"""Seconds by which the clocks of one service's servers may differ."""
DRIFT = 0.001
"""By how much two clocks may drift apart: NTP slews each by up to 500 ppm."""


class StoreClock:
    """Bounds of the store's time, in seconds since 1970; learned from its answers."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._bounds: tuple[float, float] | None = None  # of store's minus our time
        self._learned = 0.0

    @property
    def known(self) -> bool:
        """Tell whether there was an answer yet."""
        return self._bounds is not None

    def learn(self, date: str, sent: float, received: float) -> None:
        """Take in the `Date` of an answer, and our clock's time around the request.

        Raises ValueError if it is no date.
        """
        stamp = parsedate_to_datetime(date).timestamp()
        low, high = stamp - received, stamp + 1 - sent
        with self._lock:
            if self._bounds is not None:
                known_low, known_high = self._drifted(received)
                if max(low, known_low) <= min(high, known_high):
                    low, high = max(low, known_low), min(high, known_high)
                else:  # one of both clocks was set, or stood still: either may be right
                    low, high = min(low, known_low), max(high, known_high)
            self._bounds, self._learned = (low, high), received

    def earliest(self) -> float:
        """Return what the store's time is now at the least."""
        at = self._clock()
        with self._lock:
            return at + self._drifted(at)[0] - SERVERS

    def latest(self) -> float:
        """Return what the store's time is now at the most."""
        at = self._clock()
        with self._lock:
            return at + self._drifted(at)[1] + SERVERS

    def _drifted(self, at: float) -> tuple[float, float]:
        if self._bounds is None:
            raise ValueError("no answer of the store has told its time yet")
        drift = DRIFT * abs(at - self._learned)
        return self._bounds[0] - drift, self._bounds[1] + drift

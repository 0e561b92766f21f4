"""The sign of life of `watch` and `run`: without it keepalives and watchdog stop."""

from __future__ import annotations

from service_monitor.node.notify import Notifier
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.timing import now

STEP = 4 * CALL_TIMEOUT
"""Seconds that the longest step of a round takes: four calls to a store that hangs."""


class Pulse:
    """Whether the work of this process goes on.

    What renews a record asks `vouch`: a process that hangs must not be listed for ever.
    """

    def __init__(self, ttl: float, notifier: Notifier | None = None) -> None:
        """Count as hanging after `ttl` seconds without a sign of life."""
        self.notifier = notifier or Notifier()
        self._ttl = ttl
        self._latest = now()
        self._ending = False

    def beat(self) -> None:
        """Take note that the work goes on, and tell the notifier. Never blocks."""
        self._latest = now()
        self.notifier.beat(max(self._ttl, STEP))

    def end(self) -> None:
        """Vouch for good, as the end takes its time and has bounds of its own."""
        self._ending = True

    def vouch(self) -> bool:
        """Tell whether the work goes on: not if one step has taken a whole ttl."""
        return self._ending or now() - self._latest < self._ttl

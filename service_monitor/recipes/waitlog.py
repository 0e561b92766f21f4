"""What the log, and the error at the end, say of a wait for the lease."""

from __future__ import annotations

import logging

from service_monitor.errors import AcquireTimeout, IdInUse
from service_monitor.recipes import queue
from service_monitor.recipes.lease import Request, Waiting
from service_monitor.recipes.trouble import Trouble, failure_text
from service_monitor.timing import format_duration

log = logging.getLogger(__name__)


class WaitLog:
    """Logs what the wait is about, each thing once; the `trouble` logs itself."""

    def __init__(self, request: Request, trouble: Trouble) -> None:
        self._request = request
        self._trouble = trouble
        self._state = "the queue was never seen"
        self._conflict = False

    def note(self, outcome: Waiting) -> None:
        """Log the place in the queue and who holds, or what forbids, if it changed."""
        self._conflict = bool(outcome.conflict)
        forbidden = outcome.conflict or outcome.gate
        level = logging.WARNING if forbidden else logging.INFO
        state = forbidden or queue.describe(outcome.queue, self._request.key)
        if state != self._state:
            log.log(level, "label %s: waiting, %s", self._request.label, state)
        self._state = state

    def summary(self) -> str:
        """Say in one line how the wait goes."""
        if self._trouble.failure:
            return f"{self._state}; {failure_text(self._trouble.failure)}"
        return self._state

    def verdict(self, timeout: float) -> AcquireTimeout:
        """Return the error that says why the lease was not acquired, and what to do."""
        kind = IdInUse if self._conflict else AcquireTimeout
        text = (
            f"label {self._request.label}: lease not acquired within "
            f"{format_duration(timeout)}: {self.summary()}"
        )
        if self._trouble.failure or self._conflict:
            return kind(text)
        return kind(f"{text}. See `service-monitor status`, or raise --acquire-timeout")

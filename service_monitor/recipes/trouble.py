"""Wait out the failures of a store: logged once, flagged, with growing pauses."""

from __future__ import annotations

import logging
import random

from service_monitor.errors import LocalLack, StoreError, StoreRefused
from service_monitor.recipes.timings import Timings

log = logging.getLogger(__name__)

Failure = StoreError | LocalLack
FAILURES = StoreError, LocalLack
"""What may pass while one waits; for an `except`."""


def failure_text(error: Failure) -> str:
    """Say whose failure it is."""
    if isinstance(error, LocalLack):
        return str(error)
    if isinstance(error, StoreRefused):
        return f"the store refuses us: {error}"
    return f"the store does not serve us: {error}"


class Trouble:
    """Takes note of failures, and logs each kind in a row once, and their end.

    `meanwhile` is what is done about them, such as "trying again". With `refusal_ends`
    a store that refuses us before it ever `served` us is not waited for: no waiting
    lifts that.
    """

    def __init__(
        self,
        meanwhile: str,
        timings: Timings,
        *,
        refusal_ends: bool = False,
    ) -> None:
        self._meanwhile = meanwhile
        self._timings = timings
        self._refusal_ends = refusal_ends
        self._in_a_row = 0
        self.failure: Failure | None = None
        """The latest one; None since all works."""

    def met(self, error: Failure) -> None:
        """Take note of a failure. Raises it where it is not to be waited out."""
        if self._refusal_ends and isinstance(error, StoreRefused):
            raise error
        if self.failure is None or _kind(self.failure) is not _kind(error):
            self._log(error)
        self.failure = error
        self._in_a_row += 1

    def served(self) -> None:
        """Take note that the store served us: from now on refusals are waited out."""
        self._refusal_ends = False

    def over(self) -> None:
        """Take note that all works."""
        if isinstance(self.failure, LocalLack):
            log.info("this machine has again what it lacked")
        elif self.failure:
            log.info("the store is back")
        self.failure = None
        self._in_a_row = 0

    def pause(self) -> float:
        """Return the seconds until the next try, always the same."""
        return self._timings.store_retry

    def growing_pause(self) -> float:
        """Return the seconds until the next try: more after each, never in step.

        For waiters in a queue: all meet the same outage, and its end.
        """
        first, longest = self._timings.first_retry, self._timings.longest_retry
        most: float = min(longest, first * 2 ** min(self._in_a_row, 8))
        return random.uniform(0.5, 1.0) * most

    def _log(self, error: Failure) -> None:
        if isinstance(error, LocalLack):
            log.warning("no outage of the store, %s: %s", self._meanwhile, error)
        elif isinstance(error, StoreRefused):
            log.error("the store refuses us, %s: %s", self._meanwhile, error)
        else:
            log.warning("the store does not serve us, %s: %s", self._meanwhile, error)


def _kind(error: Failure) -> type[Failure]:
    for kind in LocalLack, StoreRefused:
        if isinstance(error, kind):
            return kind
    return StoreError

"""What is said of a store or a machine that fails, by whoever goes on without it."""

from __future__ import annotations

import logging

from service_monitor.errors import LocalLack, StoreError, StoreRefused

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
    """Logs failures that are waited out: once for each kind in a row, and their end.

    `doing` is what goes on meanwhile, such as "trying on".
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.failure: Failure | None = None

    def met(self, error: Failure) -> None:
        """Take note of a failure."""
        if self.failure is None or _kind(self.failure) is not _kind(error):
            self._log(error)
        self.failure = error

    def over(self) -> None:
        """Take note that all works."""
        if isinstance(self.failure, LocalLack):
            log.info("this machine has again what it lacked")
        elif self.failure:
            log.info("the store is back")
        self.failure = None

    def _log(self, error: Failure) -> None:
        if isinstance(error, LocalLack):
            log.warning("no outage of the store, %s: %s", self._doing, error)
        elif isinstance(error, StoreRefused):
            log.error("the store refuses us, %s: %s", self._doing, error)
        else:
            log.warning("the store does not serve us, %s: %s", self._doing, error)


def _kind(error: Failure) -> type[Failure]:
    for kind in LocalLack, StoreRefused:
        if isinstance(error, kind):
            return kind
    return StoreError

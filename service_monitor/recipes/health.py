"""Rise and fall: what several probe results in a row say about a service.

No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Health:
    """Up after `rise` successes in a row, down after `fall` failures in a row.

    A service starts as down. The words are HAProxy's and nerve's.
    """

    rise: int = 1
    fall: int = 2
    up: bool = False
    reason: str = "not up yet"
    successes: int = 0
    failures: int = 0
    latest: str = ""

    def observe(self, ok: bool, reason: str) -> bool:
        """Take one probe's result; return True when the state changed by it."""
        self.successes = self.successes + 1 if ok else 0
        self.failures = 0 if ok else self.failures + 1
        self.latest = reason
        enough = self.failures >= self.fall if self.up else self.successes >= self.rise
        if enough:
            self.up = not self.up
        if ok == self.up:  # a failure not yet believed is no reason for being up
            self.reason = reason
        return enough

    def doubt(self) -> None:
        """Go down by the latest failure alone: the service may have started anew."""
        if self.up and self.failures:
            self.up, self.reason = False, self.latest

"""When the turn may pass on: after successes of probes that began in it.

No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.records import Record, Ticket, nonce_of
from service_monitor.timing import now


@dataclass
class Turn:
    """The acquisition seen, and the successes of probes that began after that.

    Only so can a `watch` of an earlier start, or a probe of the old process, never free
    a lease that was acquired since.
    """

    rise: int
    seen: Record | None = None
    since: float = 0.0
    successes: int = 0
    given_back: bool = False

    def look(self, record: Record | None) -> bool:
        """Take note of the ticket as it is; return True if the lease is a new one."""
        ticket = Ticket.from_json(record.value) if record else None
        held = record if ticket and ticket.held else None
        if held and self.seen and _acquisition(held) == _acquisition(self.seen):
            self.seen = held  # on etcd v2 a renewal is a new version
            return False
        self.seen, self.since, self.successes = held, now(), 0
        self.given_back = False
        return held is not None

    def observe(self, ok: bool) -> None:
        """Count the result of a probe that began after `look`."""
        self.successes = self.successes + 1 if ok else 0

    @property
    def earned(self) -> bool:
        """Tell whether the next node may start."""
        return self.seen is not None and self.successes >= self.rise


def _acquisition(record: Record) -> tuple[int, str | None]:
    """Return what each acquisition has of its own, however often it is renewed."""
    return record.created, nonce_of(record.value)

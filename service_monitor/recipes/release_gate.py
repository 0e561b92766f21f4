"""Whether `watch` may release the lease yet: enough good probes since it saw it.

No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.records import Record, Ticket, nonce_of
from service_monitor.timing import now


@dataclass
class ReleaseGate:
    """Opens after `rise` successes in a row of probes begun since the lease was seen.

    It is about one acquisition: a new one closes it. So a `watch` of an earlier start,
    or a probe of the old process, never frees a lease that was acquired since.
    """

    rise: int
    acquisition: Record | None = None
    """The lease as last seen; None while this service id holds none."""
    seen_at: float = 0.0
    """When this acquisition was first seen, on this process's clock."""
    successes: int = 0
    release_sent: bool = False
    """Whether its deletion was sent: it may be gone although no reply came."""

    def look(self, record: Record | None) -> bool:
        """Take note of the ticket as it is; return True if the lease is a new one."""
        ticket = Ticket.from_json(record.value) if record else None
        held = record if ticket and ticket.held else None
        known = self.acquisition
        if held and known and _identity(held) == _identity(known):
            self.acquisition = held  # on etcd v2 a renewal is a new version
            return False
        self.acquisition, self.seen_at, self.successes = held, now(), 0
        self.release_sent = False
        return held is not None

    def observe(self, ok: bool) -> None:
        """Count the result of a probe that began after `look`."""
        self.successes = self.successes + 1 if ok else 0

    @property
    def is_open(self) -> bool:
        """Tell whether the lease may be released, so that the next node starts."""
        return self.acquisition is not None and self.successes >= self.rise


def _identity(record: Record) -> tuple[int, str | None]:
    """Return what only this acquisition has, however often it is renewed."""
    return record.created, nonce_of(record.value)

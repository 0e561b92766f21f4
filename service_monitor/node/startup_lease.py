"""The startup lease beside the rounds of a watch: seen, kept alive, released or lost.

Released is what the gate lets through: an acquisition that was seen, after enough
probes that began since. It is deleted by compare-and-delete on that very acquisition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from service_monitor.errors import Conflict
from service_monitor.node.holding import Holding
from service_monitor.node.pulse import Pulse
from service_monitor.recipes.chronicle import Chronicle
from service_monitor.recipes.health import Health
from service_monitor.recipes.lease import Lease
from service_monitor.recipes.release_gate import ReleaseGate
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.records import Record, Snapshot, Ticket, nonce_of
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """This process acquired the lease, keeps it alive, and releases no other one."""

    lease: Lease
    on_lost: Callable[[], None]
    """Called from any thread, once, when it goes before it was released."""

    def covers(self, record: Record) -> bool:
        """Tell whether this is the ticket of that acquisition."""
        return nonce_of(record.value) == nonce_of(self.lease.record.value)


@dataclass(frozen=True)
class NothingHeld:
    """This process acquired none: one of this service id is another process's."""

    def covers(self, record: Record) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True)
class AnyOfOurs:
    """Another process acquires it: each acquisition of this service id counts."""

    def covers(self, record: Record) -> bool:
        """Return True."""
        return True


Claim = Held | NothingHeld | AnyOfOurs
"""Which acquisitions of its service id are a watcher's business."""


class StartupLease:
    """The startup lease of one service id, as far as a claim covers it.

    One that is `Held` is kept alive from here on, while the pulse vouches, and as long
    as it may last; probes that begin from now on count for its release. Raises
    `LocalLack` where there is no thread for that.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        claim: Claim,
        health: Health,
        trouble: Trouble,
        pulse: Pulse,
        chronicle: Chronicle,
    ) -> None:
        self.key = key
        """The key of its ticket."""
        self.snapshot: Snapshot | None = None
        """The ticket as last seen; None before it was looked for."""
        self._store = store
        self._claim = claim
        self._health = health
        self._trouble = trouble
        self._chronicle = chronicle
        self._gate = ReleaseGate(health.rise)
        self._holding: Holding | None = None
        if isinstance(claim, Held):
            pulse.beat()
            self._gate.look(claim.lease.record)
            self._holding = Holding(store, claim.lease, pulse.vouch, self._overdue)
            self._holding.watch()

    @property
    def seen(self) -> bool:
        """Whether the lease was seen, and not seen to go."""
        return self._gate.acquisition is not None

    @property
    def lapsed(self) -> bool:
        """Whether the lease that is kept alive may have ended in the store."""
        return self._holding is not None and self._holding.lapsed

    def why_lapsed(self) -> str:
        """Say why the lease that was kept alive ended."""
        trouble = str(self._trouble.failure or "")
        return self._holding.why(trouble) if self._holding else "it was not held"

    def let_go(self) -> None:
        """Keep it alive no more. Never blocks."""
        if self._holding:
            self._holding.end()
        self._holding = None

    def look(self) -> bool:
        """See whether our service id holds it; return True if it newly does.

        What the store fails in is trouble of the watcher's, and no answer.
        """
        before, since = self._gate.acquisition, self._gate.seen_at
        release_sent = self._gate.release_sent
        try:
            self.snapshot = self._store.list(self.key)
        except FAILURES as error:
            self._trouble.met(error)
            return False
        records = self.snapshot.records
        found = records[0] if records and self._claim.covers(records[0]) else None
        new = self._gate.look(found)
        if new:
            self.let_go()  # another acquisition than the one that is kept alive
            self._chronicle.began()
            log.info("this service holds the startup lease; released once it is up")
        elif before and not self.seen:
            if release_sent:  # only the reply was lost
                self._released(since)
            elif self.lapsed:
                self._gone(self.why_lapsed())
            else:
                self._gone(self._how_it_went(before, now() - since))
        elif found and self._holding and self._holding.over:
            self._end_late(found)
        return new

    def observe(self, ok: bool) -> None:
        """Count the result of a probe that began after the latest look."""
        self._gate.observe(ok)

    def release_if_due(self) -> None:
        """Let the next node start, if enough probes were right. "up" is in the store.

        Raises `StoreError`.
        """
        if not self._gate.is_open or self._gate.acquisition is None:
            return
        self._gate.release_sent = True
        try:
            self._store.delete(self._gate.acquisition)
        except Conflict:
            return  # acquired again: the next round sees it
        self._released(self._gate.seen_at)
        self._gate = ReleaseGate(self._health.rise)

    def _released(self, since: float) -> None:
        log.info(
            "startup lease released after %s: the next node may start",
            format_duration(now() - since),
        )
        self._chronicle.note("released", seconds=now() - since)
        self.let_go()

    def _end_late(self, record: Record) -> None:
        """End what a late renewal made longer than it may be."""
        with suppress(Conflict, *FAILURES):
            self._store.delete(record)

    def _how_it_went(self, record: Record, seconds: float) -> str:
        """Say how a lease may have ended that was not due, or that nobody renews."""
        if self._holding:
            return "it was released by hand, or another start of this service id has it"
        ticket = Ticket.from_json(record.value)
        timeout = format_duration(ticket.lease_timeout if ticket else 0)
        seen = f"seen for {format_duration(seconds)}, --lease-timeout was {timeout}"
        return f"{seen}; if it expired, use a longer one"

    def _gone(self, why: str) -> None:
        if self._holding is None or self._holding.lose():
            self._lost(why)  # else that was logged, and acted on

    def _overdue(self) -> None:
        self._lost(self.why_lapsed())

    def _lost(self, why: str) -> None:
        up = self._health.up
        log.warning(
            "the startup lease went before %s (%s): %s. The next node may start now",
            "the service was up" if not up else "the store said that it is up",
            self._health.reason,
            why,
        )
        self._chronicle.lost(why)
        if isinstance(self._claim, Held):
            self._claim.on_lost()

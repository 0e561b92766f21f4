"""Write one ticket of ours, keep it alive, take it or take it back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from service_monitor.errors import KeyExists
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.release import remove_own
from service_monitor.recipes.session import Session
from service_monitor.records import Record, Ticket
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration

log = logging.getLogger(__name__)


class TicketLife:
    """A ticket that is written, kept alive while it waits, and may become the lease.

    It begins before its first write is sent: that may reach the store although no reply
    comes. When the ticket was lost, or the lease ended unused, another life follows it,
    and nothing that was known of this one counts for that.

    Each method makes at most a few calls to the store and does not wait for others.
    They raise `StoreError`, and `Conflict` or `RecordGone` where the ticket changed
    since it was looked at.
    """

    def __init__(
        self,
        store: Store,
        request: Request,
        nonce: str,
        waiter_ttl: float,
        clock: Callable[[], float],
        session: Callable[[Store, Record, float], Session],
    ) -> None:
        self._store = store
        self._request = request
        self._nonce = nonce
        self._waiter_ttl = waiter_ttl
        self._clock = clock
        self._new_session = session
        self._session: Session | None = None
        self._tried = False  # a write that makes it the lease was sent
        self._until = -math.inf  # what that may be renewed up to
        self.missed = False
        """Whether the lease ended before it could be used: to be taken back."""

    @property
    def was_seen(self) -> bool:
        """Tell whether the ticket is known to have been in the store, waiting."""
        return self._session is not None

    @property
    def lapses_within(self) -> float:
        """Return the seconds after which what was written is gone at the latest."""
        is_lease = self._tried and not self.missed
        return self._request.ttl if is_lease else self._waiter_ttl

    def enter(self, earlier: Record | None) -> None:
        """Write the ticket: a new one, or in the place of an `earlier` run's."""
        value, ttl = self._value("waiting"), self._waiter_ttl
        if earlier is not None:
            record = self._store.update(earlier, value, ttl)
        else:
            try:
                record = self._store.create(self._request.key, value, ttl)
            except KeyExists as error:
                if Ticket.from_json(error.record.value) is not None:
                    return  # ours, its reply lost; or just now another's
                record = self._store.update(error.record, value, ttl)
        self.keep_alive(record)

    def keep_alive(self, record: Record) -> Session:
        """Let the waiting ticket be renewed, as the record that was just read."""
        if self._session is None or not self._session.keeps(record):
            self.stop_renewing()
            self._session = self._new_session(self._store, record, self._waiter_ttl)
        return self._session

    def stop_renewing(self) -> None:
        """Renew it no more; it stays for what is left of its ttl. Never blocks."""
        if self._session is not None:
            self._session.end()
        self._session = None

    def take(self, record: Record) -> Lease:
        """Turn the waiting ticket into the lease."""
        session = self.keep_alive(record)
        repeated = self._tried
        asked = self._trying()
        record = session.update(record, self._value("held"), self._request.ttl)
        # An earlier try may be the one that came through: then the store's time counts.
        return self.learn(record) if repeated else self._won(record, asked)

    def take_again(self, record: Record, *, longer: bool) -> Lease:
        """Renew the lease of an earlier run; only with `longer` it ends later."""
        asked = self._trying()
        ttl = self._request.ttl if longer else None
        record = self._store.update(record, self._value("held"), ttl)
        if longer:
            return self._won(record, asked)
        lease = self.learn(record)
        left = format_duration(lease.deadline - self._clock())
        log.info("others wait: this lease still ends in %s", left)
        return lease

    def learn(self, record: Record) -> Lease:
        """Return the lease that the store says is ours, for as long as it says."""
        asked = self._clock()
        return Lease(record, asked + self._store.time_left(record), self._until)

    def take_back(self) -> None:
        """Remove the ticket or lease, also one whose write was never confirmed."""
        self.stop_renewing()
        remove_own(self._store, self._request.key, self._nonce)

    def _trying(self) -> float:
        """Return the time, and note that of the first try: its limit counts from it."""
        asked = self._clock()
        if not self._tried and self._request.stays:
            self._until = asked + self._request.lease_timeout
        self._tried = True
        return asked

    def _won(self, record: Record, asked: float) -> Lease:
        return Lease(record, asked + self._request.ttl, self._until)

    def _value(self, state: str) -> str:
        request = self._request
        return Ticket(
            service_id=request.service_id,
            host=request.host,
            state="held" if state == "held" else "waiting",
            nonce=self._nonce,
            lease_timeout=request.lease_timeout,
            slots=request.slots,
            found="once" if request.found == "once" else None,
        ).to_json()

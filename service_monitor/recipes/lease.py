"""The startup lease: a queue of tickets, written once over the store primitives.

Rules:
1. A ticket's place is its index among the live tickets of its label, by `created`. It
   only moves forward, so a place seen once is good for as long as the ticket lives.
2. Whoever finds its place below `slots` turns its ticket into the lease, by a write
   that succeeds only while that very ticket is still there, unchanged.
3. That write's version is the fencing token. The holder counts its deadline from before
   the request, the store from after it: the holder's always ends first. Where it is in
   doubt which write came through, the store's own count is asked for.
4. After any doubt (a lost reply, a pause, an outage) the list decides, by the nonce.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress

from service_monitor.errors import (
    Conflict,
    HeldByAnother,
    KeyExists,
    RecordGone,
    Replaced,
    StoreUnavailable,
)
from service_monitor.recipes.identity import queued_elsewhere
from service_monitor.recipes.queue import Entry, Queue, read_queue, tell_strangers
from service_monitor.recipes.session import TRIES, Session, remove_own
from service_monitor.recipes.turn import HOLDER_TTL as HOLDER_TTL
from service_monitor.recipes.turn import Lease as Lease
from service_monitor.recipes.turn import Request as Request
from service_monitor.recipes.turn import Waiting as Waiting
from service_monitor.records import (
    Record,
    Snapshot,
    Ticket,
    lease_prefix,
    new_nonce,
)
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

WAITER_TTL = 15.0
"""Seconds after which a dead waiter no longer blocks the queue."""

LOOK_NEXT, LOOK_LATER = 1.0, 5.0
"""Seconds between two looks if no wake-up comes: of the next in line, as many as there
are slots, and of the others."""


class Contender:
    """One service id's attempt at the lease, a step at a time.

    Nothing here sleeps or waits for others; `acquire` does. So a test can interleave
    the steps of many.
    """

    def __init__(
        self,
        store: Store,
        request: Request,
        clock: Callable[[], float] = now,
        session: Callable[[Store, Record, float], Session] = Session,
        check: Callable[[], None] = lambda: None,
        enter: Callable[[Entry | None, Queue], Waiting | None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._request = request
        self._clock = clock
        self._new_session = session
        self._check = check  # raises where nothing more is to be written
        self._enter = enter  # says what forbids to queue
        self._nonce = new_nonce()
        self._session: Session | None = None
        self._joined = False  # a ticket of ours may be in the store
        self._tried = False  # and may have become the lease
        self._until = -math.inf  # and that be renewed up to then
        self._warned = False
        self._strangers: set[str] = set()
        self._leaving = False  # what we missed is still to be given back

    def step(self) -> Lease | Waiting:
        """Look where we stand, and take the lease if it is our turn.

        Raises `StoreError`: try again, the place is kept as long as the ticket lives;
        and `Replaced` if another process of the same service id took the ticket over.
        """
        for _ in range(TRIES):
            # Changed under our eyes, by others or by us: look again.
            with suppress(Conflict, RecordGone):
                if self._leaving:
                    self.leave()
                outcome = self._look()
                if isinstance(outcome, Lease) and outcome.deadline <= self._clock():
                    self.missed()
                elif outcome is not None:
                    if isinstance(outcome, Lease):
                        self._end_session()  # it lives on without us
                    return outcome
        raise StoreUnavailable(f"{self._request.key} changes between any two looks")

    @property
    def lapses_within(self) -> float:
        """Return the seconds after which what we wrote is gone at the latest."""
        return self._request.ttl if self._tried else WAITER_TTL

    def leave(self) -> None:
        """Take back the ticket or lease, also one whose write was never confirmed.

        Raises `StoreError`.
        """
        self._end_session()
        if self._joined:
            remove_own(self._store, self._request.key, self._nonce)
        self._leaving = False

    def _look(self) -> Lease | Waiting | None:
        """Do what the list asks for; None if that was to enter the queue."""
        snapshot = self._store.list(lease_prefix(self._request.label))
        self._check()
        queue = read_queue(snapshot)
        tell_strangers(queue, self._strangers)
        found = queue.find(self._request.key)
        if found is None or found[1].ticket.nonce != self._nonce:
            mine = found and found[1]
            return self._blocked(mine, queue, snapshot) or self._join(mine, queue)
        index, mine = found
        self._compare_slots(queue)
        if mine.ticket.held:
            return self._learned(mine.record)  # the reply to our write was lost
        session = self._session
        if session is None or not session.keeps(mine.record):
            session = self._keep_alive(mine.record)
        if index >= queue.slots:
            return self._behind(queue, index, snapshot)
        return self._take(session, mine.record)

    def _blocked(
        self, mine: Entry | None, queue: Queue, snapshot: Snapshot
    ) -> Waiting | None:
        """Return what forbids to queue: this service id lives on another host."""
        if mine is None or not self._request.queues_elsewhere(mine.ticket.host):
            return self._enter(mine, queue)
        if self._session is not None:
            self._lost(None)
        why = queued_elsewhere(mine.ticket, WAITER_TTL)
        return Waiting(queue, 0, snapshot, mine.record.key, True, LOOK_LATER, why)

    def _join(self, mine: Entry | None, queue: Queue) -> Lease | None:
        """Enter the queue, with a new ticket or in the place of an earlier run."""
        if self._session is not None:
            self._lost(mine)
        self._joined = True
        if mine is not None and mine.ticket.held:
            if not (self._request.stays and queue.waiters):
                return self._take_again(mine, queue)
            # It may not be made longer, and what it has left is not enough to boot.
            log.info("others wait: giving back what was left of a lease, queueing anew")
            self._store.delete(mine.record)
            mine = None
        value = self._ticket("waiting")
        if mine is not None:
            record = self._store.update(mine.record, value, WAITER_TTL)
        else:
            try:
                record = self._store.create(self._request.key, value, WAITER_TTL)
            except KeyExists as error:
                if Ticket.from_json(error.record.value) is not None:
                    return None  # ours, its reply lost; or just now another's
                record = self._store.update(error.record, value, WAITER_TTL)
        self._keep_alive(record)
        return None

    def _compare_slots(self, queue: Queue) -> None:
        if queue.slots_differ and not self._warned:
            listed = (f"{e.ticket.service_id} {e.ticket.slots}" for e in queue.entries)
            log.warning(
                "label %s: --slots differ, the smallest counts: %s",
                self._request.label,
                ", ".join(listed),
            )
        self._warned = queue.slots_differ

    def _lost(self, other: Entry | None) -> None:
        """Say that our ticket is gone; raise `Replaced` if another process has it."""
        self._end_session()
        self._tried, self._until = False, -math.inf
        if other is not None:
            raise Replaced(
                f"another acquire-lease for service id {self._request.service_id!r} on "
                f"host {other.ticket.host} took this one's place: it goes on, this one "
                "ends. Does each node have a service id of its own?"
            )
        log.warning(
            "label %s: our ticket expired (was this process paused or cut off for more "
            "than %s?): queueing again, at the end",
            self._request.label,
            format_duration(WAITER_TTL),
        )

    def missed(self) -> None:
        """Give back a lease that ended before it could be used; `step` queues again.

        Raises `StoreError`.
        """
        whole = self._request.ttl == self._request.lease_timeout
        log.warning(
            "label %s: the lease expired before it could be used (was this process "
            "paused or cut off for more than %s?): queueing again, at the end",
            self._request.label,
            ("--lease-timeout " if whole else "") + format_duration(self._request.ttl),
        )
        self._tried, self._until, self._leaving = False, -math.inf, True
        self.leave()

    def _take(self, session: Session, record: Record) -> Lease:
        repeated = self._tried
        asked = self._trying(renewable=True)
        record = session.update(record, self._ticket("held"), self._request.ttl)
        # An earlier try may be the one that came through: then the store's time counts.
        return self._learned(record) if repeated else self._won(record, asked)

    def _take_again(self, mine: Entry, queue: Queue) -> Lease:
        """Renew our own lease; it is made longer only while nobody else waits."""
        longer = not queue.waiters
        asked = self._trying(renewable=longer)
        ttl = self._request.ttl if longer else None
        record = self._store.update(mine.record, self._ticket("held"), ttl)
        if longer:
            return self._won(record, asked)
        lease = self._learned(record)
        left = format_duration(lease.deadline - self._clock())
        log.info("others wait: this lease still ends in %s", left)
        return lease

    def _trying(self, *, renewable: bool) -> float:
        """Note the first try to take the lease, which is what its limit counts from."""
        asked = self._clock()
        if not self._tried and renewable and self._request.stays:
            self._until = asked + self._request.lease_timeout
        self._tried = True
        return asked

    def _won(self, record: Record, asked: float) -> Lease:
        return Lease(record, asked + self._request.ttl, self._until)

    def _learned(self, record: Record) -> Lease:
        """Return the lease that the store says is ours, for as long as it says."""
        asked = self._clock()
        return Lease(record, asked + self._store.time_left(record), self._until)

    def _behind(self, queue: Queue, index: int, snapshot: Snapshot) -> Waiting:
        position = queue.position(self._request.key)
        is_next = index == queue.slots
        # With several slots the next in line waits for whichever holder goes first, and
        # who is behind it becomes the next also by its being granted.
        several = queue.slots > 1
        # But that one may be paused or dead: so whoever the next `slots` releases may
        # concern looks often.
        is_near = index < 2 * queue.slots
        prefix = lease_prefix(self._request.label)
        ahead = queue.entries[index - 1].record.key
        return Waiting(
            queue,
            position,
            snapshot,
            obstacle=prefix if several and is_next else ahead,
            gone=is_next or not several,
            patience=LOOK_NEXT if is_near else LOOK_LATER,
        )

    def _ticket(self, state: str) -> str:
        request = self._request
        return Ticket(
            service_id=request.service_id,
            host=request.host,
            state="held" if state == "held" else "waiting",
            nonce=self._nonce,
            lease_timeout=request.lease_timeout,
            slots=request.slots,
        ).to_json()

    def _keep_alive(self, record: Record) -> Session:
        self._end_session()
        self._session = self._new_session(self._store, record, WAITER_TTL)
        return self._session

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.end()
        self._session = None


def release(
    store: Store,
    label: str,
    service_id: str,
    token: int | None = None,
    *,
    force: bool = False,
) -> bool:
    """Give this service id's lease back; return whether there was one.

    With a token only that very acquisition. A ticket that still waits belongs to a
    living `acquire-lease` and stays; `force` removes whatever there is. Raises
    `HeldByAnother` and `StoreError`.
    """
    key = lease_prefix(label) + service_id
    for _ in range(TRIES):
        records = store.list(key).records
        if not records:
            return False
        ticket, version = Ticket.from_json(records[0].value), records[0].version
        if not force and not (ticket and ticket.held):
            return False
        if token not in (None, version) and not force:
            raise HeldByAnother(
                f"label {label}: {service_id} holds the lease with token {version}, "
                f"not {token}: a newer start of it. Use that token, or --force"
            )
        try:
            store.delete(records[0])
        except Conflict as error:
            if force:
                continue
            raise HeldByAnother(
                f"label {label}: {service_id} acquired the lease anew meanwhile (token "
                f"{error.record.version}): that one is not released"
            ) from error
        return True
    raise StoreUnavailable(f"{key} changes between any two looks")

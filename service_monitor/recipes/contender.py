"""Decide whether our ticket may become the lease now; a gate before a grant is here.

Rules:
1. A ticket's place is its index among the live tickets of its label, by `created`. It
   only moves forward, so a place seen once is good for as long as the ticket lives. Who
   claimed to found the cluster goes ahead of those that wait for it: turn.py.
2. A contender whose place is below `slots` turns its ticket into the lease, by a write
   that succeeds only while that very ticket is still there, unchanged.
3. That write's version is the fencing token. The holder counts its deadline from before
   the request, the store from after it: the holder's always ends first. Where it is in
   doubt which of two writes came through, the store is asked how long the lease lasts.
4. After any doubt (a lost reply, a pause, an outage) the list decides, by the nonce.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from service_monitor.errors import Replaced, StoreRefused
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.founding import Decision
from service_monitor.recipes.identity import queued_elsewhere
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.recipes.queue import Entry, Queue, read_queue, warn_of_strangers
from service_monitor.recipes.retry import Changed, look_again
from service_monitor.recipes.session import Session
from service_monitor.recipes.ticket import TicketLife
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.turn import behind, comes_after, gated
from service_monitor.records import Record, Snapshot, lease_prefix, new_nonce
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)


class Contender:
    """One service id's attempt at the lease, a step at a time.

    Nothing here sleeps or waits for others; `acquire` does. So a test can interleave
    the steps of many.

    `session` makes what keeps a waiting ticket alive. `check` is called between a look
    and what is written because of it: it raises where nothing more is to be written.
    `enter` is asked before a ticket is written and returns what forbids that. The
    `founding` is looked at before the queue is: turn.py tells why.
    """

    def __init__(
        self,
        store: Store,
        request: Request,
        clock: Callable[[], float] = now,
        session: Callable[[Store, Record, float], Session] = Session,
        check: Callable[[], None] = lambda: None,
        enter: Callable[[Entry | None, Queue], Waiting | None] = lambda *_: None,
        timings: Timings = TIMINGS,
        founding: Founding | None = None,
    ) -> None:
        self._store = store
        self._request = request
        self._clock = clock
        self._new_session = session
        self._check = check
        self._enter = enter
        self._timings = timings
        self._founding = founding or Founding(store, request)
        # One for all lives: a write whose reply was lost may show up in a later one.
        self._nonce = new_nonce()
        self._life: TicketLife | None = None
        """What may be in the store of ours; None if that is nothing."""
        self._warned_of_slots = False
        self._strangers: set[str] = set()

    def step(self) -> Lease | Waiting:
        """Look where we stand, and take the lease if it is our turn.

        Raises `StoreError`: try again, the place is kept as long as the ticket lives;
        and `Replaced` if another process of the same service id took the ticket over.
        """
        return look_again(self._try, self._request.key)

    @property
    def lapses_within(self) -> float:
        """Return the seconds after which what we wrote is gone at the latest."""
        return self._life.lapses_within if self._life else self._timings.waiter_ttl

    def missed(self) -> None:
        """Give back a lease that ended before it could be used; `step` queues again.

        Raises `StoreError`: then the next `step` gives it back first.
        """
        whole = self._request.ttl == self._request.lease_timeout
        log.warning(
            "label %s: the lease expired before it could be used (was this process "
            "paused or cut off for more than %s?): queueing again, at the end",
            self._request.label,
            ("--lease-timeout " if whole else "") + format_duration(self._request.ttl),
        )
        self._current_life().missed = True
        self.leave()

    def leave(self) -> None:
        """Take back the ticket or lease, also one whose write was never confirmed.

        Asks the store nothing if none was ever sent. Raises `StoreError`: then it may
        be called again.
        """
        if self._life is not None:
            self._life.take_back()
        self._life = None

    def _try(self) -> Lease | Waiting:
        """Look and act once; raise `Changed` where that calls for another look."""
        if self._life is not None and self._life.missed:
            self.leave()
        outcome = self._look()
        if outcome is None:
            raise Changed
        if isinstance(outcome, Lease):
            if outcome.deadline <= self._clock():
                self.missed()
                raise Changed
            self._current_life().stop_renewing()  # the lease lives on without us
        return outcome

    def _look(self) -> Lease | Waiting | None:
        """Do what the list asks for; None if that was to enter the queue."""
        decision = self._founding.glance()
        self._check()
        snapshot = self._store.list(lease_prefix(self._request.label))
        self._check()
        queue = read_queue(snapshot)
        warn_of_strangers(queue, self._strangers)
        found = queue.find(self._request.key)
        if found is None or found[1].ticket.nonce != self._nonce:
            earlier = found and found[1]
            blocked = self._blocked(earlier, queue, snapshot)
            if blocked is None and earlier and earlier.ticket.held:
                blocked = self._forbidden(decision, queue)
            return blocked or self._join(earlier, queue)
        index, mine = found
        life = self._current_life()
        self._compare_slots(queue)
        if mine.ticket.held:
            return life.learn(mine.record)  # the reply to our write was lost
        life.keep_alive(mine.record)
        ahead = decision.ahead
        if comes_after(queue, index, ahead=ahead) >= queue.slots:
            return behind(queue, index, snapshot, self._timings, ahead=ahead)
        return self._forbidden(decision, queue) or life.take(mine.record)

    def _forbidden(self, decision: Decision, queue: Queue) -> Waiting | None:
        """Return what forbids a start whose place would do; else claim to found."""
        if decision.act not in ("found", "join"):
            decision = self._founding.look()
            if decision.act in ("found", "join"):
                raise Changed  # and the queue was read before that
        if decision.act == "wait":
            return gated(queue, self._request, decision, self._timings)
        self._founding.act(decision)
        return None

    def _current_life(self) -> TicketLife:
        if self._life is None:
            self._life = TicketLife(
                self._store,
                self._request,
                self._nonce,
                self._timings.waiter_ttl,
                self._clock,
                self._new_session,
            )
        return self._life

    def _blocked(
        self, earlier: Entry | None, queue: Queue, snapshot: Snapshot
    ) -> Waiting | None:
        """Return what forbids to queue: this service id lives on another host."""
        if earlier is None or not self._request.queues_elsewhere(earlier.ticket.host):
            return self._enter(earlier, queue)
        if self._life is not None and self._life.was_seen:
            self._lost(self._life, None)
        return Waiting(
            queue,
            0,
            snapshot,
            obstacle=earlier.record.key,
            gone=True,
            look_within=self._timings.look_later,
            conflict=queued_elsewhere(earlier.ticket, self._timings.waiter_ttl),
        )

    def _join(self, earlier: Entry | None, queue: Queue) -> Lease | None:
        """Enter the queue, with a new ticket or in the place of an earlier run."""
        if self._life is not None and self._life.was_seen:
            self._lost(self._life, earlier)
        is_new, life = self._life is None, self._current_life()
        try:
            return self._write(life, earlier, queue)
        except StoreRefused:
            if is_new:  # so nothing of ours was written
                self._life = None
            raise

    def _write(
        self, life: TicketLife, earlier: Entry | None, queue: Queue
    ) -> Lease | None:
        if earlier is not None and earlier.ticket.held:
            if not (self._request.stays and queue.waiters):
                # It is made longer only while nobody else waits.
                return life.take_again(earlier.record, longer=not queue.waiters)
            # It may not be made longer, and what it has left is not enough to boot.
            log.info("others wait: giving back what was left of a lease, queueing anew")
            self._store.delete(earlier.record)
            earlier = None
        life.enter(earlier.record if earlier else None)
        return None

    def _compare_slots(self, queue: Queue) -> None:
        if queue.slots_differ and not self._warned_of_slots:
            listed = (f"{e.ticket.service_id} {e.ticket.slots}" for e in queue.entries)
            log.warning(
                "label %s: --slots differ, the smallest counts: %s",
                self._request.label,
                ", ".join(listed),
            )
        self._warned_of_slots = queue.slots_differ

    def _lost(self, life: TicketLife, other: Entry | None) -> None:
        """End a life whose ticket is gone; raise `Replaced` if it is another's now."""
        life.stop_renewing()
        self._life = None
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
            format_duration(self._timings.waiter_ttl),
        )

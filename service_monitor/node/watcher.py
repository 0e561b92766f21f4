"""Watch one service: probe it, publish its state, give the turn to the next node.

The chain that must not break: "up" is in the store before the lease is released, so the
hosts that the next node reads after its grant contain this one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from service_monitor.errors import Conflict, Stopped
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.node.holding import Holding
from service_monitor.node.notify import Notifier
from service_monitor.node.probe import Probe
from service_monitor.recipes.health import Health
from service_monitor.recipes.lease import Lease
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.recipes.release_gate import ReleaseGate
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.records import Record, Snapshot, Ticket, lease_prefix, nonce_of
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

STARTUP_INTERVAL = 0.25
"""Seconds between two probes while this service id holds the startup lease."""

STORE_RETRY = 1.0
"""Seconds between two rounds while the store does not serve us."""
STEP = 4 * CALL_TIMEOUT
"""Seconds that the longest step of a round takes: four calls to a store that hangs."""
_PACE = 0.05
"""Seconds between two rounds at the least, whatever wakes us."""


@dataclass(frozen=True)
class Rhythm:
    """How often to probe (seconds), and how many results in a row to believe."""

    interval: float = 5.0
    rise: int = 1
    fall: int = 2
    connected: float = STARTUP_INTERVAL
    """While this service id holds the startup lease, after a success."""


class Watcher:
    """One round after the other, until the stop."""

    def __init__(
        self,
        store: Store,
        service: Service,
        rhythm: Rhythm,
        probe: Probe,
        bounds: Bounds,
        notifier: Notifier | None = None,
    ) -> None:
        self.was_up = False
        """Whether it was up at any time."""
        self.published = False
        """Whether the store says that it is up."""
        self.stays = False
        """Whether `run` leaves the registration to `withdraw`, as more is urgent."""
        self._store = store
        self.service = service
        self._rhythm = rhythm
        self._probe = probe
        self._bounds = bounds
        self._stop = bounds.stop
        self._notifier = notifier or Notifier()
        self._holding: Holding | None = None
        self._nonce: str | None = None  # of the one acquisition that is ours
        self._ending = False
        self._on_lost: Callable[[], None] = lambda: None
        self._health = Health(rhythm.rise, rhythm.fall)
        self._gate = ReleaseGate(rhythm.rise)
        self._ticket_key = lease_prefix(service.label) + service.service_id
        self._snapshot: Snapshot | None = None
        self._trouble = Trouble("probing on")
        self._said = False
        self._beat = now()
        self._publisher = Publisher(store, service, self._vouch, self.alive)

    @property
    def holds(self) -> bool:
        """Tell whether the startup lease was seen, and not seen to go."""
        return self._gate.acquisition is not None

    def hold(self, lease: Lease | None, on_lost: Callable[[], None]) -> None:
        """Keep this startup lease alive: while rounds are made, as long as it may last.

        Probes that begin from now on count for its release, and no other acquisition's:
        that is of another process. `on_lost` is called, from any thread, when it goes
        before it was released. Raises `LocalLack` where it finds no thread.
        """
        self._nonce = nonce_of(lease.record.value) if lease else ""
        if lease is None:
            return
        self.alive()
        self._gate.look(lease.record)
        self._on_lost = on_lost
        self._holding = Holding(self._store, lease, self._vouch, self._overdue)
        self._holding.watch()

    def let_go(self) -> None:
        """Keep the startup lease alive no more."""
        if self._holding:
            self._holding.end()
        self._holding = None

    @property
    def lapsed(self) -> bool:
        """Tell whether the lease that is kept alive may have ended in the store."""
        return self._holding is not None and self._holding.lapsed

    @property
    def is_up(self) -> bool:
        """Tell whether the probes say that it is up."""
        return self._health.up

    def why_lapsed(self) -> str:
        """Say why the lease that was kept alive ended."""
        trouble = str(self._trouble.failure or "")
        return self._holding.why(trouble) if self._holding else "it was not held"

    def run(self) -> None:
        """Watch until the stop is requested, then deregister.

        Returns, never raises.
        """
        try:
            while not self._stop.requested:
                self.round()
        except Stopped:
            pass
        finally:
            self._ending = True
            if not self.stays:
                self.withdraw()

    def round(self) -> None:
        """Look, probe, publish, release, and sleep until the next round is due."""
        begun = now()
        self._look()
        self.alive()
        result = self._probe()
        self.alive()
        if self._health.observe(*result) or not self._said:
            self._say()
        if self._health.up and not self.was_up:
            self.was_up = True
            self._notifier.ready()
        self._gate.observe(result.ok)
        before = self._health.up
        try:
            if self._publish() and self.is_up:
                self._release()
            self._trouble.over()
        except FAILURES as error:
            self._trouble.met(error)
        if self._health.up != before:  # as its record was taken back
            self._say()
        self.alive()
        interval = self._rhythm.interval
        if self._gate.acquisition:
            well = result.ok or self._health.up
            hurry = self._rhythm.connected if well else STARTUP_INTERVAL
            interval = min(interval, hurry)
        elif self._trouble.failure:
            interval = min(interval, STORE_RETRY)
        self._pause(begun + interval)

    def _publish(self) -> bool:
        done = False
        try:
            done = self._publisher.reconcile(self._health)
        finally:
            self.published = done and self.is_up
        self.alive()
        return done

    def _look(self) -> bool:
        """See whether our service id holds the lease; return True if it newly does."""
        before, since = self._gate.acquisition, self._gate.seen_at
        given_back = self._gate.release_sent
        try:
            self._snapshot = self._store.list(self._ticket_key)
        except FAILURES as error:
            self._trouble.met(error)
            return False
        found = next(iter(self._snapshot.records), None)
        if found and self._nonce is not None and nonce_of(found.value) != self._nonce:
            found = None
        new = self._gate.look(found)
        if new:
            self.let_go()  # another one's
            log.info("this service holds the startup lease; released once it is up")
        elif before and not self._gate.acquisition:
            if given_back:  # only the reply was lost
                self._released(since)
            elif self.lapsed:
                self._gone(self.why_lapsed())
            else:
                self._gone(self._life(before, now() - since))
        elif found and self._holding and self._holding.over:
            self._end_late(found)
        return new

    def _end_late(self, record: Record) -> None:
        """End what a late renewal made longer than it may be."""
        with suppress(Conflict, *FAILURES):
            self._store.delete(record)

    def _gone(self, why: str) -> None:
        if self._holding is None or self._holding.lose():
            self._lost(why)  # else that was said, and acted on

    def _overdue(self) -> None:
        self._lost(self.why_lapsed())

    def _lost(self, why: str) -> None:
        log.warning(
            "the startup lease went before %s (%s): %s. The next node may start now",
            "the service was up" if not self.is_up else "the store said that it is up",
            self._health.reason,
            why,
        )
        self._on_lost()

    def _life(self, record: Record, seconds: float) -> str:
        """Say how a lease may have ended that was not due, or that nobody renews."""
        if self._holding:
            return "it was released by hand, or another start of this service id has it"
        ticket = Ticket.from_json(record.value)
        timeout = format_duration(ticket.lease_timeout if ticket else 0)
        seen = f"seen for {format_duration(seconds)}, --lease-timeout was {timeout}"
        return f"{seen}; if it expired, use a longer one"

    def _release(self) -> None:
        if not self._gate.is_open or self._gate.acquisition is None:
            return
        self._gate.release_sent = True
        try:
            self._store.delete(self._gate.acquisition)
        except Conflict:
            return  # acquired again: the next round sees it
        self._released(self._gate.seen_at)
        self._gate = ReleaseGate(self._rhythm.rise)

    def _released(self, since: float) -> None:
        log.info(
            "startup lease released after %s: the next node may start",
            format_duration(now() - since),
        )
        self.let_go()

    def _pause(self, until: float) -> None:
        """Sleep, but wake when our service id acquires the lease."""
        self._stop.wait(_PACE)
        while not self._stop.requested and (left := until - now()) > 0:
            if self.holds or self._trouble.failure or self._snapshot is None:
                self._stop.wait(left)
                return
            try:
                self._store.wait(self._ticket_key, self._snapshot, left)
            except FAILURES:  # the next round tells whether the store serves us
                self._stop.wait(min(STORE_RETRY, left))
            self.alive()
            if until - now() > _PACE and self._look():
                return
            self.alive()
            self._stop.wait(min(_PACE, max(0.0, until - now())))

    def _vouch(self) -> bool:
        """Tell whether the rounds go on: not if one has stalled for a whole ttl."""
        return self._ending or now() - self._beat < self.service.ttl

    def alive(self) -> None:
        """Take note that the work goes on."""
        self._beat = now()
        self._notifier.beat(max(self.service.ttl, STEP))

    def _say(self) -> None:
        level = logging.INFO if self._health.up else logging.WARNING
        state = "up" if self._health.up else "down"
        log.log(
            level,
            "label %s: %s is %s: %s",
            self.service.label,
            self.service.service_id,
            state,
            self._health.reason,
        )
        self._notifier.status(f"{state}: {self._health.reason}")
        self._said = True

    def withdraw(self) -> None:
        """Deregister. Never raises."""
        try:
            with self._bounds.within(STOP_GRACE):
                withdrawn = self._publisher.withdraw()
            if withdrawn:
                log.info("deregistered %s", self.service.service_id)
                return
        except (*FAILURES, Stopped) as error:
            if self._publisher.wrote:
                log.warning(
                    "cannot deregister, the record lapses within %s: %s",
                    format_duration(self.service.ttl),
                    error,
                )
                return
        when = "any more" if self._publisher.wrote else "and never was"
        log.info("%s is not registered %s", self.service.service_id, when)

"""Watch one service: probe it, publish its state, give the turn to the next node.

The chain that must not break: "up" is in the store before the lease is released, so the
hosts that the next node reads after its grant contain this one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from service_monitor.calls import STOP_GRACE, Stop
from service_monitor.errors import Conflict, Stopped
from service_monitor.health import Health
from service_monitor.lease import HOLDER_TTL, Lease
from service_monitor.notify import Notifier
from service_monitor.probe import Probe
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.records import Record, Snapshot, Ticket, lease_prefix, nonce_of
from service_monitor.registry import Publisher, Service
from service_monitor.session import Session
from service_monitor.stores import CALL_TIMEOUT, Store
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


class Watcher:
    """One round after the other, until the stop."""

    def __init__(
        self,
        store: Store,
        service: Service,
        rhythm: Rhythm,
        probe: Probe,
        stop: Stop,
        notifier: Notifier | None = None,
    ) -> None:
        self.was_up = False
        """Whether it was up at any time."""
        self._store = store
        self.service = service
        self._rhythm = rhythm
        self._probe = probe
        self._stop = stop
        self._notifier = notifier or Notifier()
        self._lease: Session | None = None
        self._nonce: str | None = None  # of the one acquisition that is ours
        self._ending = False
        self._on_lost: Callable[[], None] = lambda: None
        self._health = Health(rhythm.rise, rhythm.fall)
        self._turn = Turn(rhythm.rise)
        self._ticket_key = lease_prefix(service.label) + service.service_id
        self._snapshot: Snapshot | None = None
        self._trouble = Trouble("probing on")
        self._said = False
        self._beat = now()
        self._publisher = Publisher(store, service, self._vouch)

    @property
    def holds(self) -> bool:
        """Tell whether the startup lease was seen, and not seen to go."""
        return self._turn.seen is not None

    def hold(self, lease: Lease | None, on_lost: Callable[[], None]) -> None:
        """Keep this startup lease alive: while rounds are made, as long as it may last.

        Probes that begin from now on count for its release, and no other acquisition's:
        that is of another process. `on_lost` is called when it goes before the service
        was up. Raises `LocalLack` where there is no thread for it.
        """
        self._nonce = nonce_of(lease.record.value) if lease else ""
        if lease is None:
            return
        self._turn.look(lease.record)
        self._on_lost = on_lost
        self._lease = Session(
            self._store,
            lease.record,
            HOLDER_TTL,
            self._vouch,
            deadline=lease.deadline,
            until=lease.end,
        )

    def let_go(self) -> None:
        """Keep the startup lease alive no more."""
        if self._lease:
            self._lease.end()
        self._lease = None

    @property
    def lapsed(self) -> bool:
        """Tell whether the lease that is kept alive may have ended in the store."""
        return self._lease is not None and now() >= self._lease.deadline

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
            self._withdraw()

    def round(self) -> None:
        """Look, probe, publish, release, and sleep until the next round is due."""
        begun = now()
        self._look()
        self._alive()
        result = self._probe()
        self._alive()
        if self._health.observe(*result) or not self._said:
            self._say()
        if self._health.up and not self.was_up:
            self.was_up = True
            self._notifier.ready()
        self._turn.observe(result.ok)
        try:
            if self._publisher.reconcile(self._health) and self._health.up:
                self._release()
            self._trouble.over()
        except FAILURES as error:
            self._trouble.met(error)
        self._alive()
        interval = self._rhythm.interval
        if self._turn.seen:
            well = result.ok or self._health.up
            hurry = self._rhythm.connected if well else STARTUP_INTERVAL
            interval = min(interval, hurry)
        elif self._trouble.failure:
            interval = min(interval, STORE_RETRY)
        self._pause(begun + interval)

    def _look(self) -> bool:
        """See whether our service id holds the lease; return True if it newly does."""
        before, since = self._turn.seen, self._turn.since
        given_back = self._turn.given_back
        try:
            self._snapshot = self._store.list(self._ticket_key)
        except FAILURES as error:
            self._trouble.met(error)
            if self.lapsed and not self._health.up:
                self._lost(f"not renewed in time: {error}")
            return False
        found = next(iter(self._snapshot.records), None)
        if found and self._nonce is not None and nonce_of(found.value) != self._nonce:
            found = None
        new = self._turn.look(found)
        if new:
            self.let_go()  # another one's
            log.info("this service holds the startup lease; released once it is up")
        elif before and not self._turn.seen:
            if given_back:  # only the reply was lost
                self._released(since)
            else:
                late = "not renewed in time: was this process paused, or the store away"
                self._lost(late if self.lapsed else _life(before, now() - since))
        return new

    def _lost(self, why: str) -> None:
        log.warning(
            "the startup lease went before the service was up (%s): %s. The next node "
            "may start now. If it expired, use a longer --lease-timeout",
            self._health.reason,
            why,
        )
        self.let_go()
        if not self._health.up:
            self._on_lost()

    def _release(self) -> None:
        if not self._turn.earned or self._turn.seen is None:
            return
        self._turn.given_back = True
        try:
            self._store.delete(self._turn.seen)
        except Conflict:
            return  # acquired again: the next round sees it
        self._released(self._turn.since)
        self._turn = Turn(self._rhythm.rise)

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
            if self._turn.seen or self._trouble.failure or self._snapshot is None:
                self._stop.wait(left)
                return
            try:
                self._store.wait(self._ticket_key, self._snapshot, left)
            except FAILURES:  # the next round tells whether the store serves us
                self._stop.wait(min(STORE_RETRY, left))
            if until - now() > _PACE and self._look():
                return
            self._stop.wait(min(_PACE, max(0.0, until - now())))

    def _vouch(self) -> bool:
        """Tell whether the rounds go on: not if one has stalled for a whole ttl."""
        return self._ending or now() - self._beat < self.service.ttl

    def _alive(self) -> None:
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

    def _withdraw(self) -> None:
        self._stop.limit(STOP_GRACE)
        try:
            if self._publisher.withdraw():
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


def _life(record: Record, seconds: float) -> str:
    ticket = Ticket.from_json(record.value)
    timeout = format_duration(ticket.lease_timeout if ticket else 0)
    return f"seen for {format_duration(seconds)}, --lease-timeout was {timeout}"

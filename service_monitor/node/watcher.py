"""Watch one service: probe it, publish its state, let the next node start.

The chain that must not break: "up" is in the store before the lease is released, so the
hosts that the next node reads after its grant contain this one.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

from service_monitor.errors import Stopped
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.node.closing import close
from service_monitor.node.founded import Founded, NotAsked
from service_monitor.node.probe import Probe
from service_monitor.node.pulse import Pulse
from service_monitor.node.startup_lease import Claim, StartupLease
from service_monitor.recipes.chronicle import Chronicle
from service_monitor.recipes.health import Health
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.records import ticket_key
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rhythm:
    """How often to probe (seconds), and how many results in a row to believe."""

    interval: float = 5.0
    rise: int = 1
    fall: int = 2
    sparing: bool = False
    """Whether to probe less often while this service id holds the startup lease, from
    the first success on."""


@dataclass(frozen=True)
class Watched:
    """What a watcher watches: the service as it is published, and how it is probed.

    And whether its cluster is founded.
    """

    service: Service
    probe: Probe
    rhythm: Rhythm
    founded: Founded = field(default_factory=NotAsked)


class Watcher:
    """One round after the other, until the stop.

    The claim says which acquisitions of the startup lease it may release; one that is
    `Held` it keeps alive from now on. Raises `LocalLack` where there is no thread for
    that.
    """

    def __init__(
        self,
        store: Store,
        watched: Watched,
        claim: Claim,
        pulse: Pulse,
        bounds: Bounds,
        timings: Timings = TIMINGS,
        chronicle: Chronicle | None = None,
    ) -> None:
        service, rhythm = watched.service, watched.rhythm
        self.was_up = False
        """Whether it was up at any time."""
        self.published = False
        """Whether the store says that it is up."""
        self._service = service
        self._rhythm = rhythm
        self._probe = watched.probe
        self._founded = watched.founded
        self._store = store
        self._pulse = pulse
        self._bounds = bounds
        self._stop = bounds.stop
        self._timings = timings
        self._health = Health(rhythm.rise, rhythm.fall)
        self._trouble = Trouble("still probing", timings)
        self._logged = False
        self._ours = False  # the registration
        self._chronicle = chronicle = chronicle or Chronicle(store, service)
        self._publisher = Publisher(
            store, service, pulse.vouch, pulse.beat, chronicle.remember
        )
        key = ticket_key(service.label, service.service_id)
        self.lease = StartupLease(
            store, key, claim, self._health, self._trouble, pulse, chronicle
        )

    @property
    def is_up(self) -> bool:
        """Whether the probes say that it is up."""
        return self._health.up

    def run(self) -> None:
        """Watch until the stop is requested, then deregister.

        Returns, never raises.
        """
        try:
            self.rounds()
        finally:
            self.withdraw()

    def rounds(self) -> None:
        """Make rounds until the stop is requested. The registration stays, and alive.

        Returns, never raises.
        """
        try:
            while not self._stop.requested:
                self.round()
        except Stopped:
            pass
        finally:
            self._pulse.end()

    def round(self) -> None:
        """Look, probe, publish, release, and sleep until the next round is due."""
        begun = now()
        self.lease.look()
        self._pulse.beat()
        result = self._probe()
        self._pulse.beat()
        if self._health.observe(*result):
            self._turned()
        elif not self._logged:
            self._log_state()
        if self._health.up and not self.was_up:
            self.was_up = True
            self._pulse.notifier.ready()
        self.lease.observe(result.ok)
        before = self._health.up
        try:
            self._founded.look()
            if self._publish():
                if self.is_up:
                    self.lease.release_if_due()
                    self._founded.ask()
                self._chronicle.keep_up()
            self._trouble.over()
        except FAILURES as error:
            self._trouble.met(error)
        if self._health.up != before:  # as its record was taken back
            self._turned()
        self._pulse.beat()
        self._pause(begun + self._interval(result.ok))

    def withdraw(self) -> None:
        """Deregister, and write down how it ended.

        Blocks for `STOP_GRACE` at the most. Never raises.
        """
        with self._bounds.within(STOP_GRACE):
            if (withdrawn := self._deregister()) is not None:
                close(self._chronicle, self._bounds, withdrawn=withdrawn)

    def _deregister(self) -> bool | None:
        """Return whether there was a registration of ours; None if that failed."""
        publisher, service_id = self._publisher, self._service.service_id
        try:
            if publisher.withdraw():
                log.info("deregistered %s", service_id)
                return True
        except (*FAILURES, Stopped) as error:
            if publisher.wrote:
                log.warning(
                    "cannot deregister, the record lapses within %s: %s",
                    format_duration(self._service.ttl),
                    error,
                )
                return None
        when = "any more" if publisher.wrote else "and never was"
        log.info("%s is not registered %s", service_id, when)
        return False

    def _publish(self) -> bool:
        done = False
        try:
            done = self._publisher.reconcile(self._health)
        finally:
            self._ours, self.published = done, done and self.is_up
        self._pulse.beat()
        return done

    def _interval(self, ok: bool) -> float:
        """Return the seconds from probe to probe after one with this result."""
        interval, timings = self._rhythm.interval, self._timings
        if self.lease.seen:
            well = ok or self._health.up
            spare = well and self._rhythm.sparing
            return min(
                interval, timings.connected if spare else timings.startup_interval
            )
        if self._trouble.failure:
            return min(interval, self._trouble.pause())
        return interval

    def _pause(self, until: float) -> None:
        """Sleep, but wake when our service id acquires the lease."""
        stop, lease, pace = self._stop, self.lease, self._timings.pace
        stop.wait(pace)
        while not stop.requested and (left := until - now()) > 0:
            if lease.seen or self._trouble.failure or lease.snapshot is None:
                stop.wait(left)
                return
            try:
                due_in = self._chronicle.due_in if self._ours else math.inf
                self._store.wait(lease.key, lease.snapshot, min(left, due_in))
                if due_in < math.inf:
                    self._chronicle.keep_up()
            except FAILURES:  # the next round tells whether the store serves us
                stop.wait(min(self._trouble.pause(), left))
            self._pulse.beat()
            if until - now() > pace and lease.look():
                return
            self._pulse.beat()
            stop.wait(min(pace, max(0.0, until - now())))

    def _turned(self) -> None:
        self._chronicle.turned(self._health.up, self._health.reason)
        self._log_state()

    def _log_state(self) -> None:
        level = logging.INFO if self._health.up else logging.WARNING
        state = "up" if self._health.up else "down"
        log.log(
            level,
            "label %s: %s is %s: %s",
            self._service.label,
            self._service.service_id,
            state,
            self._health.reason,
        )
        self._pulse.notifier.status(f"{state}: {self._health.reason}")
        self._logged = True

"""Start COMMAND in its turn, and stay with it: its lease, its health, its end."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress

from service_monitor.errors import (
    AcquireTimeout,
    CannotStart,
    IdInUse,
    LeaseLost,
    LocalLack,
    StoreRefused,
)
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.net.lacks import start_thread
from service_monitor.node.child import KILL_WAIT, Child
from service_monitor.node.closing import remembering_failure
from service_monitor.node.ending import Ending
from service_monitor.node.joining import Joining, environment
from service_monitor.node.plan import Plan
from service_monitor.node.pulse import Pulse
from service_monitor.node.signals import for_command
from service_monitor.node.startup_lease import Claim, Held, NothingHeld
from service_monitor.node.watcher import Watched, Watcher
from service_monitor.recipes.acquire import acquire, give_back, unclaim
from service_monitor.recipes.arrival import Arrival
from service_monitor.recipes.chronicle import Chronicle
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import Trouble, failure_text
from service_monitor.stores.base import Store
from service_monitor.timing import now

log = logging.getLogger(__name__)


class Runner:
    """One start of one command."""

    def __init__(
        self,
        store: Store,
        request: Request,
        plan: Plan,
        watched: Watched,
        pulse: Pulse,
        bounds: Bounds,
        ending: Ending,
        timings: Timings = TIMINGS,
    ) -> None:
        self._store = store
        self._request = request
        self._plan = plan
        self._watched = watched
        self._pulse = pulse
        self._bounds = bounds
        self._stop = bounds.stop
        self._ending = ending
        self._notifier = pulse.notifier
        self._timings = timings
        self._lost = False  # and so COMMAND was stopped
        self._founds = False
        self._never_started = True
        self._started: Watcher | None = None  # beside COMMAND
        self._gone = False  # the lease, before its time
        self._chronicle = Chronicle(store, watched.service)
        ttl = watched.service.ttl
        self._arrival = Arrival(store, request, ttl, self._check, timings)
        self._founding = Founding(store, request)
        self._joining = Joining(
            store,
            request,
            self._arrival,
            self._founding,
            pulse.notifier,
            self._stop,
            self._check,
            timings,
        )

    def run(self) -> int:
        """Start the command at its turn; return its exit code when it has ended.

        Blocks for as long as it runs. 1 if it was stopped because the lease was lost.
        Raises `AcquireTimeout`, `Replaced`, `StoreRefused`, `LocalLack`, `Stopped`,
        `LeaseLost` and `CannotStart` when it was never started; then nothing of ours
        stays in the store.
        """
        with remembering_failure(self._chronicle, self._bounds):
            return self._run_in_turn(self._acquire())

    def _run_in_turn(self, lease: Lease | None) -> int:
        try:
            self._notifier.extend(self._request.lease_timeout)
            watcher = self._new_watcher(lease)
            try:
                code = self._run(lease, watcher)
            finally:
                watcher.lease.let_go()
        finally:
            if self._never_started:
                unclaim(self._founding, self._bounds)
            if lease is not None:
                give_back(self._store, self._request, lease, self._bounds)
        return LeaseLost.exit_code if self._lost or code is None else code

    def _run(self, lease: Lease | None, watcher: Watcher) -> int | None:
        child = self._start(lease, watcher)
        try:
            watcher.rounds()
        finally:
            lost = self._lost  # then to stop COMMAND is more urgent
            if not lost:
                watcher.withdraw()
            self._end(child, watcher.was_up)
            if lost:
                watcher.withdraw()
        return child.code

    def _acquire(self) -> Lease | None:
        plan, begun = self._plan, now()
        self._chronicle.note("queued")
        try:
            lease = acquire(
                self._store,
                self._request,
                plan.acquire_timeout,
                self._bounds,
                self._notifier,
                self._arrival,
                self._timings,
                self._founding,
            )
            self._chronicle.note("granted", f"token {lease.token}", now() - begun)
            return lease
        except AcquireTimeout as error:
            if not plan.start_anyway or isinstance(error, IdInUse):
                raise
            log.warning("starting without the lease: %s", error)
            return None
        except StoreRefused as error:
            if not plan.start_anyway:
                raise
            log.error("starting without the lease: %s", failure_text(error))
            return None

    def _new_watcher(self, lease: Lease | None) -> Watcher:
        """Return what keeps the lease alive and probes COMMAND.

        Where there is no thread for that, wait for one as long as the lease lasts.
        """
        claim: Claim = Held(lease, self._lose) if lease else NothingHeld()
        trouble = Trouble("trying again", self._timings)
        while True:
            try:
                watched, pulse, bounds = self._watched, self._pulse, self._bounds
                more = self._timings, self._chronicle
                made = Watcher(self._store, watched, claim, pulse, bounds, *more)
                trouble.over()
                return made
            except LocalLack as error:
                if lease is None or now() >= lease.deadline:
                    raise
                trouble.met(error)
            self._stop.wait(trouble.pause())
            self._check()

    def _start(self, lease: Lease | None, watcher: Watcher) -> Child:
        others = self._joining.others(lease, watcher.lease)
        self._founds = others.founds
        environ = environment(os.environ, lease, others)
        self._stop.check()
        if watcher.lease.lapsed:
            raise self._joining.too_late(watcher.lease)
        plan = self._plan
        hosts = others.hosts
        whom = "unknown" if hosts is None else ", ".join(hosts) or "nobody"
        log.info("starting %s; to join: %s", plan.command[0], whom)
        # Before it runs, as a signal may come while it is being started.
        ours = 2 * STOP_GRACE + KILL_WAIT + 1
        self._ending.forced_after = plan.drain + plan.stop_timeout + ours
        self._chronicle.began()
        self._never_started = False
        with self._ending.starting():
            try:
                child = Child(plan.command, environ, self._ended, alone=plan.stop_alone)
            except CannotStart:
                self._never_started = True
                raise
            self._ending.last_act, self._ending.pass_on = child.kill, child.send
        self._started = watcher
        if self._gone:
            self._lose()
        return child

    def _ended(self, code: int) -> None:
        """End the rest, and this process if that takes too long: a full log, a disk."""
        if not self._stop.requested:
            self._chronicle.ended_by(f"COMMAND ended with exit code {code}")
        self._stop.request()

        def end() -> None:
            time.sleep(self._ending.forced_after)
            self._ending.last_act()
            self._ending.leave(code)

        with suppress(LocalLack):  # no thread for it
            start_thread(end)

    def _check(self) -> None:
        self._stop.check()
        self._pulse.beat()

    def _lose(self) -> None:
        """Stop the command, where the plan says so; from any thread.

        A founder counts as up with its "up" in the store: others see nobody before.
        """
        self._gone = True
        plan, watcher = self._plan, self._started
        if watcher is None or self._stop.requested:
            return
        stops = self._founds if plan.stop_if_lost is None else plan.stop_if_lost
        done = watcher.published if self._founds else watcher.is_up
        if stops and not done:
            self._lost = True
            self._chronicle.ended_by("stopped, as its lease was lost")
            self._stop.request()

    def _end(self, child: Child, was_up: bool) -> None:
        """Stop the command and all it started; one that was up drains before."""
        stop, plan = self._stop, self._plan
        hurried = stop.signals > 1
        stop.resume()
        self._notifier.stopping()
        self._notifier.extend(self._ending.forced_after)
        if stop.signal and was_up and not hurried:
            until = now() + plan.drain
            while child.code is None and not stop.requested and now() < until:
                stop.wait(min(self._timings.pace, until - now()))
            stop.resume()  # a second signal ends the drain
        if child.code is None:
            log.info("stopping %s", plan.command[0])
        child.stop(for_command(stop.signal), plan.stop_timeout, stop)
        log.info("%s ended with exit code %s", plan.command[0], child.code)

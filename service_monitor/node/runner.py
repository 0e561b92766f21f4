"""Start a command when it is its turn, and stay with it: its lease, health and end."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass

from service_monitor.errors import (
    AcquireTimeout,
    IdInUse,
    LeaseLost,
    LocalLack,
    Stopped,
    StoreRefused,
)
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.net.lacks import start_thread
from service_monitor.node.child import KILL_WAIT, Child
from service_monitor.node.ending import Ending
from service_monitor.node.notify import Notifier
from service_monitor.node.signals import for_command
from service_monitor.node.watcher import Watcher
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.arrival import Arrival, awaiting
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.release import remove_own
from service_monitor.recipes.trouble import FAILURES, Trouble, failure_text
from service_monitor.records import hosts_prefix, nonce_of
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

HOSTS = "SERVICE_MONITOR_HOSTS"
TOKEN = "SERVICE_MONITOR_LEASE_TOKEN"
FIRST = "SERVICE_MONITOR_FIRST"

_POLL = 0.05
"""Seconds between two looks whether the command has ended while it drains."""
_RETRY = 1.0
"""Seconds between two tries to read whom to join."""
_OURS = (HOSTS, TOKEN, FIRST, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Not passed on: the command is ready when we say so."""


@dataclass(frozen=True)
class Plan:
    """What to start and how to end it; times in seconds."""

    command: tuple[str, ...]
    acquire_timeout: float
    start_anyway: bool
    stop_if_lost: bool | None  # None: if it is to found the cluster
    stop_timeout: float
    drain: float
    stop_alone: bool = False
    """Whether signals are for the command only, and not for all that it started."""


class Runner:
    """One start of one command."""

    def __init__(
        self,
        store: Store,
        request: Request,
        plan: Plan,
        watcher: Watcher,
        bounds: Bounds,
        ending: Ending,
        notifier: Notifier,
    ) -> None:
        self._store = store
        self._request = request
        self._plan = plan
        self._watcher = watcher
        self._bounds = bounds
        self._stop = bounds.stop
        self._ending = ending
        self._notifier = notifier
        self._lost = False
        self._founds = False
        self._started = False
        self._gone = False  # the lease, before its time
        self._arrival = Arrival(store, request, watcher.service.ttl, self._check)

    def run(self) -> int:
        """Start the command at its turn; return its exit code when it has ended.

        Blocks for as long as it runs. 1 if it was stopped because the lease was lost.
        Raises `AcquireTimeout`, `Replaced`, `StoreRefused`, `LocalLack`, `Stopped`,
        `LeaseLost` and `CannotStart` when it was never started; then nothing of ours
        stays in the store.
        """
        lease = self._acquire()
        try:
            child = self._start(lease)
            try:
                self._watcher.run()
            finally:
                self._end(child)
                if self._watcher.stays:
                    self._watcher.withdraw()
        finally:
            self._watcher.let_go()
            with self._bounds.within(STOP_GRACE):
                self._give_back(lease)
        if self._lost or child.code is None:
            return LeaseLost.exit_code
        return child.code

    def _acquire(self) -> Lease | None:
        plan, request = self._plan, self._request
        try:
            return acquire(
                self._store,
                request,
                plan.acquire_timeout,
                self._bounds,
                self._notifier,
                self._arrival,
            )
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

    def _start(self, lease: Lease | None) -> Child:
        self._notifier.extend(self._request.lease_timeout)
        self._hold(lease)
        hosts = self._others(lease)
        environ = {k: v for k, v in os.environ.items() if k not in _OURS}
        self._founds = lease is not None and hosts == []
        environ[FIRST] = "1" if self._founds else "0"
        if lease:
            environ[TOKEN] = str(lease.token)
        if hosts is not None:
            environ[HOSTS] = ",".join(hosts)
        self._stop.check()
        if self._watcher.lapsed:
            raise self._too_late()
        plan = self._plan
        whom = "unknown" if hosts is None else ", ".join(hosts) or "nobody"
        log.info("starting %s; to join: %s", plan.command[0], whom)
        # Before it runs, as a signal may come while it is being started.
        ours = 2 * STOP_GRACE + KILL_WAIT + 1
        self._ending.forced_after = plan.drain + plan.stop_timeout + ours
        child = Child(plan.command, environ, self._ended, alone=plan.stop_alone)
        self._ending.last_act, self._ending.pass_on = child.kill, child.send
        self._started = True
        if self._gone:
            self._lose()
        return child

    def _hold(self, lease: Lease | None) -> None:
        """Keep the lease alive; wait for the thread that it takes while it lasts."""
        trouble = Trouble("trying on")
        while True:
            try:
                self._watcher.hold(lease, self._lose)
                trouble.over()
                return
            except LocalLack as error:
                if lease is None or now() >= lease.deadline:
                    raise
                trouble.met(error)
            self._stop.wait(_RETRY)
            self._check()

    def _ended(self, code: int) -> None:
        """End the rest, and this process if that takes too long: a full log, a disk."""
        self._stop.request()

        def end() -> None:
            time.sleep(self._ending.forced_after)
            self._ending.last_act()
            self._ending.leave(code)

        with suppress(LocalLack):  # no thread for it
            start_thread(end)

    def _check(self) -> None:
        self._stop.check()
        self._watcher.alive()

    def _others(self, lease: Lease | None) -> list[str] | None:
        """Return the hosts that are up, but for an earlier life of this service.

        None, and said so, if that is not known; with the lease it is waited for.
        """
        prefix, trouble = hosts_prefix(self._request.label), Trouble("trying on")
        while True:
            self._check()
            try:
                unsure = self._arrival.unsure(lease) if lease else []
                found = self._store.list(prefix).records
            except FAILURES as error:
                if lease is None:
                    log.warning("whom to join is not known, starting anyway: %s", error)
                    return None
                if self._watcher.lapsed:
                    raise self._too_late() from error
                trouble.met(error)
                self._notifier.status(f"its turn has come; {failure_text(error)}")
                self._stop.wait(_RETRY)
                continue
            if unsure and not self._watcher.lapsed:
                self._arrival.tell(unsure)
                self._notifier.status(awaiting(unsure))
                self._stop.wait(_RETRY)
                continue
            own = prefix + self._request.service_id
            return up_hosts(record for record in found if record.key != own)

    def _too_late(self) -> LeaseLost:
        return LeaseLost(
            f"label {self._request.label}: the lease ended before the command was "
            f"started ({self._watcher.why_lapsed()}): start again"
        )

    def _lose(self) -> None:
        """Stop the command, where the plan says so; from any thread.

        A founder counts as up with its "up" in the store: others see nobody before.
        """
        self._gone = True
        plan, watcher = self._plan, self._watcher
        stops = self._founds if plan.stop_if_lost is None else plan.stop_if_lost
        done = watcher.published if self._founds else watcher.is_up
        if self._started and stops and not done and not self._stop.requested:
            self._lost = watcher.stays = True
            self._stop.request()

    def _end(self, child: Child) -> None:
        """Stop the command and all it started; deregistered it is already."""
        stop, plan = self._stop, self._plan
        hurried = stop.signals > 1
        stop.resume()
        self._notifier.stopping()
        self._notifier.extend(self._ending.forced_after)
        if stop.signal and self._watcher.was_up and not hurried:
            until = now() + plan.drain
            while child.code is None and not stop.requested and now() < until:
                stop.wait(min(_POLL, until - now()))
            stop.resume()  # a second signal ends the drain
        if child.code is None:
            log.info("stopping %s", plan.command[0])
        child.stop(for_command(stop.signal), plan.stop_timeout, stop)
        log.info("%s ended with exit code %s", plan.command[0], child.code)

    def _give_back(self, lease: Lease | None) -> None:
        """Free the lease if it is still ours: it did not get up."""
        if lease is None:
            return
        try:
            nonce = nonce_of(lease.record.value) or ""
            remove_own(self._store, self._request.key, nonce)
        except (*FAILURES, Stopped) as error:
            log.warning(
                "cannot give the lease back, it lapses within %s: %s",
                format_duration(self._request.ttl),
                error,
            )

"""Wait for the lease: let a contender step until it has it, up to one deadline."""

from __future__ import annotations

import logging

from service_monitor.errors import Stopped
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.net.stop import Stop
from service_monitor.recipes.arrival import Arrival, awaiting
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.recipes.release import remove_own
from service_monitor.recipes.reporter import Reporter, Silent
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.recipes.waitlog import WaitLog
from service_monitor.records import nonce_of
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)


def acquire(
    store: Store,
    request: Request,
    timeout: float,
    bounds: Bounds,
    reporter: Reporter | None = None,
    arrival: Arrival | None = None,
    timings: Timings = TIMINGS,
    founding: Founding | None = None,
) -> Lease:
    """Take the lease when it is this service id's turn; block up to `timeout` seconds.

    The reporter is told at each look why it waits. Before it queues, the `arrival`
    takes back what an earlier life left. Where this process does not stay, it then
    waits for signs of life of the others: `hosts`, asked next, cannot wait for them.

    Outages of the store are waited out, and so is what this machine lacks. Raises
    `AcquireTimeout`, `Replaced` and `Stopped`, and `StoreRefused` if the store refuses
    us before it ever let us queue: no waiting lifts that. Then nothing of ours stays in
    the store, nor a claim to found that the `founding` made.
    """
    reporter = reporter or Silent()

    def check() -> None:
        bounds.stop.check()
        reporter.passing()

    arrival = arrival or Arrival(store, request, check=check, timings=timings)
    founding = founding or Founding(store, request)
    contender = Contender(
        store,
        request,
        check=check,
        enter=arrival.enter,
        timings=timings,
        founding=founding,
    )
    wait = _Acquiring(store, request, bounds, reporter, arrival, contender, timings)
    try:
        return wait.until_granted(timeout)
    except BaseException:
        unclaim(founding, bounds)
        _leave(contender, bounds)
        raise


class _Acquiring:
    """One wait for the lease."""

    def __init__(
        self,
        store: Store,
        request: Request,
        bounds: Bounds,
        reporter: Reporter,
        arrival: Arrival,
        contender: Contender,
        timings: Timings,
    ) -> None:
        self._store = store
        self._request = request
        self._bounds = bounds
        self._reporter = reporter
        self._arrival = arrival
        self._contender = contender
        self._timings = timings
        self._trouble = Trouble("trying again", timings, refusal_ends=True)
        self._log = WaitLog(request, self._trouble)

    def until_granted(self, timeout: float) -> Lease:
        """Step until the lease is ours, and of use; block up to `timeout` seconds."""
        stop, deadline = self._bounds.stop, now() + timeout
        stop.check()
        while True:
            try:
                outcome = self._step(deadline)
                if isinstance(outcome, Lease):
                    return outcome
                over = now() >= deadline
                if outcome is not None and not over:
                    self._reporter.queued(self._log.summary())
                    with self._bounds.within(
                        deadline + self._timings.last_look - now()
                    ):
                        left = deadline - now()
                        _await_change(self._store, outcome, left, stop, self._timings)
                    self._trouble.over()
            except FAILURES as error:
                self._trouble.met(error)
                over = now() >= deadline
                if not over:
                    self._reporter.queued(self._log.summary())
                    stop.wait(min(self._trouble.growing_pause(), deadline - now()))
            stop.check()
            if over:
                raise self._log.verdict(timeout)

    def _step(self, deadline: float) -> Lease | Waiting | None:
        """Make one step; None if that gave a lease that was of no use any more."""
        bounds, last_look = self._bounds, self._timings.last_look
        with bounds.within(deadline + last_look - now()):
            outcome = self._contender.step()
        self._trouble.served()
        if isinstance(outcome, Waiting):
            self._log.note(outcome)
            return outcome
        bounds.stop.check()
        log.info(
            "label %s: %s has the lease, token %d, for up to %s",
            self._request.label,
            self._request.service_id,
            outcome.token,
            format_duration(outcome.end - now()),
        )
        if self._request.stays or self._settle(outcome):
            return outcome
        with bounds.within(max(0.0, deadline - now()) + last_look):
            self._contender.missed()
        return None

    def _settle(self, lease: Lease) -> bool:
        """Wait until the others that are up have shown that they live, or have lapsed.

        Return whether the lease is still good then. No call outlasts half of it.
        """
        stop, timings = self._bounds.stop, self._timings
        end = min(now() + timings.sign_of_life, (now() + lease.end) / 2)
        trouble = Trouble("trying again", timings)
        while now() < end:
            try:
                with self._bounds.within(end - now()):
                    unsure = self._arrival.unsure(lease)
                trouble.over()
            except FAILURES as error:
                trouble.met(error)
                unsure = ["all that are up"]
            stop.check()
            if not unsure:
                break
            self._arrival.tell(unsure)
            self._reporter.queued(awaiting(unsure))
            stop.wait(max(0.0, min(timings.look_for_sign, end - now())))
            stop.check()
        return now() < lease.deadline


def _await_change(
    store: Store, waiting: Waiting, left: float, stop: Stop, timings: Timings
) -> None:
    """Block until the queue may have changed, at most `left` seconds."""
    started = now()
    longest = max(0.0, min(waiting.look_within, left))
    store.wait(waiting.obstacle, waiting.snapshot, longest, gone=waiting.gone)
    if now() - started < timings.queue_pace:
        stop.wait(timings.queue_pace)


def unclaim(founding: Founding, bounds: Bounds) -> None:
    """Take back the claim of a start that never came; log where that fails."""
    try:
        with bounds.within(STOP_GRACE):
            founding.give_back()
    except (*FAILURES, Stopped) as error:
        log.warning(
            "cannot give the claim to found back: only this service id may found now, "
            "until `reset`: %s",
            error,
        )


def give_back(store: Store, request: Request, lease: Lease, bounds: Bounds) -> None:
    """Free the lease if it is still ours, as what it was for is over.

    Log where that fails.
    """
    try:
        with bounds.within(STOP_GRACE):
            remove_own(store, request.key, nonce_of(lease.record.value) or "")
    except (*FAILURES, Stopped) as error:
        log.warning(
            "cannot give the lease back, it lapses within %s: %s",
            format_duration(request.ttl),
            error,
        )


def _leave(contender: Contender, bounds: Bounds) -> None:
    """Take back what may be in the store; log where that fails."""
    try:
        with bounds.within(STOP_GRACE):
            contender.leave()
    except (*FAILURES, Stopped) as error:
        log.warning(
            "cannot take the ticket back, it lapses within %s: %s",
            format_duration(contender.lapses_within),
            error,
        )

"""Wait for the turn: drive a contender, through outages and signals, to one
deadline."""

from __future__ import annotations

import logging
import random

from service_monitor.errors import (
    AcquireTimeout,
    IdInUse,
    Stopped,
    StoreRefused,
)
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.recipes import queue
from service_monitor.recipes.arrival import PATIENCE, Arrival, awaiting
from service_monitor.recipes.lease import Contender, Lease, Request, Waiting
from service_monitor.recipes.reporter import Reporter, Silent
from service_monitor.recipes.trouble import FAILURES, Failure, Trouble, told
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

_PACE = 0.02
"""Seconds between two looks at the least: a wait is a hint and may return at once."""
_LAST_LOOK = 1.0
"""Seconds past the timeout for one last look, so that the error tells the truth."""
_SIGN = 0.5
"""Seconds between two looks for a sign of life of the others."""


def acquire(
    store: Store,
    request: Request,
    timeout: float,
    bounds: Bounds,
    reporter: Reporter | None = None,
    arrival: Arrival | None = None,
) -> Lease:
    """Take the lease when it is this service id's turn; block up to `timeout` seconds.

    The reporter is told at each look why it waits. Before it queues, the `arrival`
    takes back what an earlier life left; where this process does not stay, it also
    waits for signs of life of the others, as who asks for `hosts` next cannot.

    Outages of the store are waited out, and so is what this machine lacks. Raises
    `AcquireTimeout`, `Replaced` and `Stopped`, and `StoreRefused` if the store refuses
    us before it ever let us queue: no waiting lifts that. Then nothing of ours stays in
    the store.
    """
    stop, deadline = bounds.stop, now() + timeout
    diary, reporter = _Diary(request), reporter or Silent()

    def check() -> None:
        stop.check()
        reporter.passing()

    arrival = arrival or Arrival(store, request, check=check)
    contender = Contender(store, request, check=check, enter=arrival.enter)
    queued = refused = unsure = False
    try:
        stop.check()
        while True:
            try:
                with bounds.within(deadline + _LAST_LOOK - now()):
                    outcome = contender.step()
                queued = True
                if isinstance(outcome, Lease):
                    stop.check()
                    log.info(
                        "label %s: %s has the lease, token %d, for up to %s",
                        request.label,
                        request.service_id,
                        outcome.token,
                        format_duration(outcome.end - now()),
                    )
                    if request.stays or _settle(arrival, outcome, bounds, reporter):
                        return outcome
                    with bounds.within(max(0.0, deadline - now()) + _LAST_LOOK):
                        contender.missed()
                else:
                    diary.note(outcome)
                over = now() >= deadline
                if not over and isinstance(outcome, Waiting):
                    reporter.queued(diary.summary())
                    with bounds.within(deadline + _LAST_LOOK - now()):
                        _wait(store, outcome, deadline - now(), bounds)
                    diary.recovered()
            except FAILURES as error:
                if isinstance(error, StoreRefused) and not queued:
                    refused = True
                    raise
                diary.trouble(error)
                unsure = True  # whether a ticket was written
                over = now() >= deadline
                if not over:
                    reporter.queued(diary.summary())
                    stop.wait(min(diary.backoff(), deadline - now()))
            stop.check()
            if over:
                raise diary.verdict(timeout)
    except BaseException:
        try:
            with bounds.within(STOP_GRACE):
                contender.leave()
        except (*FAILURES, Stopped) as error:
            if unsure or not refused:  # else there is none, and the error says why
                log.warning(
                    "cannot take the ticket back, it lapses within %s: %s",
                    format_duration(contender.lapses_within),
                    error,
                )
        raise


def _settle(arrival: Arrival, lease: Lease, bounds: Bounds, reporter: Reporter) -> bool:
    """Wait until the others that are up have shown that they live, or have lapsed.

    Return whether the lease is still good then. No call outlasts half of it.
    """
    stop, end = bounds.stop, min(now() + PATIENCE, (now() + lease.end) / 2)
    trouble = Trouble("trying on")
    while now() < end:
        try:
            with bounds.within(end - now()):
                unsure = arrival.unsure(lease)
            trouble.over()
        except FAILURES as error:
            trouble.met(error)
            unsure = ["all that are up"]
        stop.check()
        if not unsure:
            break
        arrival.tell(unsure)
        reporter.queued(awaiting(unsure))
        stop.wait(max(0.0, min(_SIGN, end - now())))
        stop.check()
    return now() < lease.deadline


def _wait(store: Store, waiting: Waiting, left: float, bounds: Bounds) -> None:
    started = now()
    patience = max(0.0, min(waiting.patience, left))
    store.wait(waiting.obstacle, waiting.snapshot, patience, gone=waiting.gone)
    if now() - started < _PACE:
        bounds.stop.wait(_PACE)


class _Diary:
    """Tells the operator what the wait is about, each thing once."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._state = "the queue was never seen"
        self._conflict = False
        self._failures = 0
        self._trouble = Trouble("trying on")

    def recovered(self) -> None:
        """Log the end of an outage: looking and waiting both work again."""
        self._trouble.over()
        self._failures = 0

    def note(self, outcome: Waiting) -> None:
        """Log the place in the queue and who holds, or the conflict, if it changed."""
        self._conflict = bool(outcome.conflict)
        level = logging.WARNING if self._conflict else logging.INFO
        state = outcome.conflict or queue.describe(outcome.queue, self._request.key)
        if state != self._state:
            log.log(level, "label %s: waiting, %s", self._request.label, state)
        self._state = state

    def trouble(self, error: Failure) -> None:
        """Log that the store, or this machine, is of no use, once an outage."""
        self._trouble.met(error)
        self._failures += 1

    def backoff(self) -> float:
        """Return the seconds until the next try: 0.1 doubling up to 2, with jitter."""
        longest: float = min(2.0, 0.1 * 2 ** min(self._failures, 8))
        return random.uniform(0.5, 1.0) * longest

    def summary(self) -> str:
        """Say in one line how the wait goes."""
        if self._trouble.failure:
            return f"{self._state}; {told(self._trouble.failure)}"
        return self._state

    def verdict(self, timeout: float) -> AcquireTimeout:
        """Return the error that says why the lease was not acquired, and what to do."""
        kind = IdInUse if self._conflict else AcquireTimeout
        text = (
            f"label {self._request.label}: lease not acquired within "
            f"{format_duration(timeout)}: {self.summary()}"
        )
        if self._trouble.failure or self._conflict:
            return kind(text)
        return kind(f"{text}. See `service-monitor status`, or raise --acquire-timeout")

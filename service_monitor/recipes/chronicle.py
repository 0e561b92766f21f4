"""What a label remembers of this service id, written at changes by its own process.

Rules:
1. In each life of a process nothing is written before the first "up", but at its end.
   So nobody remembers a service that was never up.
2. The record is in the store before the registration says "up", and so before the next
   node starts: whatever kills this one afterwards, it is remembered.
3. No more than one write a second, but for the one at the end. What happened meanwhile
   comes with the next one.
4. What is no member's record is left alone.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.recipes.member import MOST_EVENTS, Event, Member
from service_monitor.recipes.publisher import Service
from service_monitor.recipes.retry import Changed, look_again
from service_monitor.records import Record, member_key
from service_monitor.stores.base import Store
from service_monitor.text import printable
from service_monitor.timing import now, timestamp

log = logging.getLogger(__name__)

PACE = 1.0
"""Seconds between two writes at the least."""
LONGEST_REASON = 100
"""Characters of a reason at the most."""
_STATES: dict[str, Literal["up", "down", "stopped"]] = {
    "up": "up",
    "down": "down",
    "failed": "stopped",
    "stopped": "stopped",
}
"""The state after an event; what is not here changes none."""


def happened(event: str, reason: str = "", seconds: float | None = None) -> Event:
    """Return an event of this moment, its reason without secrets and cut to fit."""
    told = printable(reason)
    if len(told) > LONGEST_REASON:
        told = f"{told[: LONGEST_REASON - 3]}..."
    took = None if seconds is None else round(seconds, 3)
    return Event(timestamp(), event, told, took)


def fold(member: Member, news: Iterable[Event], latest: Event | None = None) -> Member:
    """Return the member after these events, the oldest first.

    `latest` is the last change of state.
    """
    if latest is not None:
        state = _STATES[latest.event]
        member = replace(member, state=state, reason=latest.reason, since=latest.at)
    return replace(member, events=(*member.events, *news)[-MOST_EVENTS:])


class Chronicle:
    """Takes note of what happens to one service id, and writes its member's record.

    Notes are taken at once, from any thread. `remember`, `keep_up` and `end` write,
    from one thread, and block for a few calls to the store. They raise `StoreError` and
    `LocalLack`; what was noted then comes with the next write.
    """

    def __init__(
        self, store: Store, service: Service, clock: Callable[[], float] = now
    ) -> None:
        self._store = store
        self._service = service
        self._key = member_key(service.label, service.service_id)
        self._clock = clock
        self._lock = threading.Lock()
        self._events: tuple[Event, ...] = ()
        """What is not yet in the store, the newest last."""
        self._latest: Event | None = None
        self._unwritten = False
        self._began: float | None = None  # the start, or the state
        self._was_up = self._up = False
        self._why = ""
        self._record: Record | None = None
        """As last written by us; None if we do not know it."""
        self._written: Member | None = None
        self._tried: tuple[int | None, tuple[Event, ...]] = None, ()
        """The version that a write was to replace which may have come through, and what
        it was about."""
        self._next_write = -math.inf
        self._warned = False

    @property
    def seconds(self) -> float | None:
        """Return how long the start, or the state, has lasted; None if not known."""
        return None if self._began is None else self._clock() - self._began

    def began(self) -> None:
        """Take note that a start begins, if the service is not up."""
        if not self._up:
            self._began = self._clock()

    def turned(self, up: bool, reason: str) -> None:
        """Take note that the service went up or down."""
        self.note("up" if up else "down", reason, self.seconds)
        self._up, self._was_up = up, self._was_up or up
        self._unwritten, self._began = self._was_up, self._clock()

    def lost(self, reason: str) -> None:
        """Take note that the lease went too early."""
        self.note("lost", reason, None if self._up else self.seconds)

    def note(self, event: str, reason: str = "", seconds: float | None = None) -> None:
        """Take note of an event: it comes with the next write."""
        told = happened(event, reason, seconds)
        with self._lock:
            self._events = (*self._events, told)[-MOST_EVENTS:]
            if event in _STATES:
                self._latest = told
            self._unwritten = self._was_up

    def ended_by(self, why: str) -> None:
        """Take note why the service ends, where no signal asked for it; the first."""
        self._why = self._why or why

    @property
    def due_in(self) -> float:
        """Return the seconds until `keep_up` is to be called; infinity if it is not."""
        left = self._next_write - self._clock()
        return max(0.0, left) if self._unwritten else math.inf

    def remember(self, anew: bool) -> None:
        """Have the record in the store: the registration is about to say "up".

        `anew` says that there is no such registration of ours: if the store has lost
        it, it may have lost the member, too.
        """
        if anew:
            self._record = None
        if self._record is None:
            self._save(creates=True)

    def keep_up(self) -> None:
        """Write what was noted, where that is due."""
        if self.due_in <= 0:
            self._save(creates=True)

    def end(self, signal: str, *, withdrawn: bool) -> None:
        """Write how it ended, if there is a record; `signal` may have asked for that.

        Nothing is written where this process had not `withdrawn` a registration of its
        own, and another one lives: another process has the service id.
        """
        if not withdrawn and self._store.list(self._service.key).records:
            return
        failed = self._why and not self._was_up
        event = "failed" if failed else "stopped"
        self.note(event, self._why or signal, self.seconds)
        self._next_write = -math.inf
        self._save(creates=False)

    def _save(self, *, creates: bool) -> None:
        with self._lock:
            news, latest = self._events, self._latest
            self._unwritten = False
        try:
            look_again(lambda: self._write(news, latest, creates), self._key)
        except BaseException:
            self._unwritten = True
            raise

    def _write(
        self, news: tuple[Event, ...], latest: Event | None, creates: bool
    ) -> None:
        record, self._record = self._record or self._find(), None
        known = self._known(record) if record else None
        if known is None and (record or not creates):
            return
        service, base = self._service, known or self._written or self._new()
        here = replace(base, host=service.host, port=service.port, info=service.info)
        wanted = fold(here, self._new_to(base, record, news), latest)
        if wanted != known:
            if record and self._written and self._clock() < self._next_write:
                self._record, self._unwritten = record, True
                return
            self._next_write = self._clock() + PACE
            self._tried = record.version if record else None, news
            record = self._put(record, wanted.to_json())
        self._record, self._written, self._tried = record, wanted, (None, ())
        with self._lock:
            self._events = tuple(e for e in self._events if e not in news)

    def _find(self) -> Record | None:
        found = self._store.list(self._key).records
        return found[0] if found else None

    def _put(self, record: Record | None, value: str) -> Record:
        try:
            if record is None:
                return self._store.create(self._key, value, None)
            return self._store.update(record, value, None)
        except (KeyExists, Conflict, RecordGone) as error:
            self._next_write = -math.inf
            raise Changed from error

    def _new_to(
        self, member: Member, record: Record | None, news: tuple[Event, ...]
    ) -> tuple[Event, ...]:
        """Leave aside what came through although its reply did not."""
        version, tried = self._tried
        if record is None or record.version == version:
            return news
        return tuple(e for e in news if not (e in tried and e in member.events))

    def _known(self, record: Record) -> Member | None:
        """Read the record; None, and warned of once, if it is not this member's."""
        found = Member.from_json(record.value)
        if found is None or found.service_id != self._service.service_id:
            self._warn("it is not a member's record")
            return None
        try:
            found.to_json().encode()
        except (RecursionError, ValueError):  # nested too deep; half a character
            self._warn("it cannot be written again as it is")
            return None
        return found

    def _new(self) -> Member:
        service = self._service
        return Member(service.service_id, service.host, "up" if self._up else "down")

    def _warn(self, why: str) -> None:
        if not self._warned:
            log.warning(
                "label %s: what is stored as %s is left alone, and so %s is not "
                "remembered: %s. To mend it: stop the service, forget, start it again",
                self._service.label,
                self._key,
                self._service.service_id,
                why,
            )
        self._warned = True

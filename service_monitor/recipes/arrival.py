"""Before a start queues: take back its old "up", see who else has its service id.

An "up" of an earlier life is taken back: nobody is to be told to join a node that
waits. Where there was an earlier life, all nodes may have been killed, and started
again before their records lapsed: then an "up" of others counts only with a sign of
life.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from service_monitor.errors import IdInUse
from service_monitor.recipes.discovery import is_joinable
from service_monitor.recipes.identity import registered_elsewhere
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.recipes.queue import Entry, Queue
from service_monitor.recipes.timings import TIMINGS, USUAL_TTL, Timings
from service_monitor.records import Record, Registration, hosts_prefix
from service_monitor.stores.base import Store
from service_monitor.timing import now

log = logging.getLogger(__name__)

_NOISE = 2.5
"""Seconds by which a store may be wrong about how long a record has left."""


class Arrival:
    """The start of one service id, from its first look until it knows whom to join.

    `ttl` is for how many seconds a registration lives without a keepalive. `check` is
    called between two calls to the store; it raises where the start is to end.
    """

    def __init__(
        self,
        store: Store,
        request: Request,
        ttl: float = USUAL_TTL,
        check: Callable[[], None] = lambda: None,
        timings: Timings = TIMINGS,
    ) -> None:
        self._timings = timings
        self._store = store
        self._request = request
        self._overdue = min(ttl, USUAL_TTL) * 2 / 3 - _NOISE
        self._check = check
        self._crashed = False  # an earlier life ended without taking back its records
        self._began = math.inf
        self._at_first: dict[str, tuple[int, int]] = {}
        """What `created` and `version` each registration had when it began."""
        self._ends: dict[str, float] = {}
        """When each record was to end as first asked for: later means renewed."""
        self._alive: set[str] = set()
        self._believe_at: float | None = None
        self._logged = False

    def enter(self, mine: Entry | None, queue: Queue) -> Waiting | None:
        """Take back the "up" of an earlier life; return what forbids to queue.

        What forbids it is the registration of a living service of this id on another
        host. `mine` is the ticket of an earlier life. Raises `StoreError`, and
        `Conflict` when a record was changed meanwhile.
        """
        request = self._request
        snapshot = self._store.list(hosts_prefix(request.label))
        self._check()
        self._crashed = self._crashed or mine is not None
        for record in snapshot.records:
            found = Registration.from_json(record.value)
            if record.key != request.hosts_key or found is None:
                continue
            if request.lives_elsewhere(found.host):
                return Waiting(
                    queue,
                    0,
                    snapshot,
                    obstacle=record.key,
                    gone=True,
                    look_within=self._timings.look_hosts,
                    conflict=registered_elsewhere(found),
                )
            self._crashed = True
            if found.up:
                self._store.delete(record)
                log.info(
                    'label %s: took back the "up" of an earlier life', request.label
                )
        if self._began == math.inf:
            self._began = now()
            self._at_first = {r.key: (r.created, r.version) for r in snapshot.records}
        return None

    def unsure(self, lease: Lease) -> list[str]:
        """Return the hosts that are up by what the store says, but may be dead.

        A host is no longer among them once its record has gone, or was written or
        renewed since this start began; without an earlier life of our own it is enough
        that its renewal is not overdue. After `sign_of_life` seconds, or when half of
        the lease is used up, the rest are believed to be up. Makes a call to the store
        for each host that is in doubt. Raises `StoreError`; and `IdInUse` if the
        service id came up on another host since.
        """
        if self._believe_at is None:
            self._believe_at = min(
                self._began + self._timings.sign_of_life, (now() + lease.end) / 2
            )
        request, hosts = self._request, []
        for record in self._store.list(hosts_prefix(request.label)).records:
            found = Registration.from_json(record.value)
            if found is None:
                continue
            if record.key == request.hosts_key and request.lives_elsewhere(found.host):
                raise IdInUse(f"label {request.label}: {registered_elsewhere(found)}")
            if found.up and is_joinable(found.host) and not self._lives(record):
                hosts.append(found.host)
        if hosts and now() >= self._believe_at:
            log.warning(
                "label %s: no sign of life in time of %s: taken for up",
                self._request.label,
                ", ".join(hosts),
            )
            return []
        return hosts

    def tell(self, unsure: list[str]) -> None:
        """Log, the first time, that the start waits for these hosts."""
        if not self._logged:
            log.info(
                "label %s: its turn has come; waiting for a sign of life of %s",
                self._request.label,
                ", ".join(unsure),
            )
        self._logged = True

    def _lives(self, record: Record) -> bool:
        """Tell whether an "up" has given a sign of life, or needs none any more."""
        key = record.key
        if now() >= self._began + self._timings.sign_of_life:
            return True  # what died before has lapsed
        is_new = self._at_first.get(key) != (record.created, record.version)
        if is_new or key in self._alive or key == self._request.hosts_key:
            return True
        self._check()
        left = self._store.time_left(record)
        end, is_first_look = now() + left, key not in self._ends
        in_time = not self._crashed and is_first_look and left >= self._overdue
        renewed = end - self._ends.setdefault(key, end) > _NOISE
        # One that lasts longer than we wait could show nothing in that time.
        if in_time or renewed or left > self._timings.sign_of_life:
            self._alive.add(key)
        return key in self._alive


def awaiting(hosts: list[str]) -> str:
    """Say whose sign of life is waited for."""
    return f"its turn has come; waiting for a sign of life of {', '.join(hosts)}"

"""The values of the lease: a request, a granted lease, a reason to wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from service_monitor.recipes.identity import same_host
from service_monitor.recipes.queue import Queue
from service_monitor.records import Record, Snapshot, registration_key, ticket_key

HOLDER_TTL = 30.0
"""Seconds that a lease lives which its holder renews, as `run` does: long enough for a
store that restarts, and for a dead machine not to hold up the others for long."""


@dataclass(frozen=True)
class Lease:
    """The right to start, until `deadline` on this process's clock (`timing.now`).

    A holder that stays may renew it, up to `until` if that is later.
    """

    record: Record
    deadline: float
    until: float = -math.inf

    @property
    def token(self) -> int:
        """Return the fencing token: it grows with every acquisition in the store."""
        return self.record.version

    @property
    def end(self) -> float:
        """Return when it is over, however often it is renewed: on the same clock."""
        return max(self.deadline, self.until)


@dataclass(frozen=True)
class Waiting:
    """Not yet: the queue as seen, and what to wait for before looking again.

    Wait until something under the prefix `obstacle` has changed since the `snapshot`,
    with `gone` until one of its records went, and at most `look_within` seconds.

    A `conflict` says which other host has the service id: then it is not in the queue,
    and its `position` is 0. A `gate` says why its turn does not come although its place
    would do: then it keeps that.
    """

    queue: Queue
    position: int
    snapshot: Snapshot
    obstacle: str
    gone: bool
    look_within: float
    conflict: str = ""
    gate: str = ""


@dataclass(frozen=True)
class Request:
    """What is asked for: a lease on `label` for `service_id`.

    It lasts `lease_timeout` seconds at most. A holder that `stays` renews it, so it
    need not outlive its holder for long. `known` says that `host` names this machine in
    the queue: then the ticket of another machine is told by its host. `published` says
    that the service is registered as this host, too: then so is a registration. `found`
    says who founds the cluster: whoever finds nobody up, or one service id `once`.
    """

    label: str
    service_id: str
    host: str
    lease_timeout: float = 240.0
    slots: int = 1
    stays: bool = False
    known: bool = True
    published: bool = False
    found: Literal["empty", "once"] = "empty"

    @property
    def key(self) -> str:
        """Return the key of its ticket."""
        return ticket_key(self.label, self.service_id)

    @property
    def hosts_key(self) -> str:
        """Return the key of its service's registration."""
        return registration_key(self.label, self.service_id)

    @property
    def ttl(self) -> float:
        """Return the seconds that the lease lives if nobody renews it."""
        return min(HOLDER_TTL, self.lease_timeout) if self.stays else self.lease_timeout

    def queues_elsewhere(self, host: str) -> bool:
        """Tell whether a ticket with this host is another machine's."""
        return self.known and not same_host(self.host, host)

    def lives_elsewhere(self, host: str) -> bool:
        """Tell whether a registration with this host is another machine's."""
        return self.published and not same_host(self.host, host)

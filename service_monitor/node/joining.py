"""In its turn, find out whom COMMAND is to join, and tell it in its environment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from service_monitor.errors import LeaseLost
from service_monitor.net.stop import Stop
from service_monitor.node.notify import Notifier
from service_monitor.node.startup_lease import StartupLease
from service_monitor.recipes.arrival import Arrival, awaiting
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.discovery import in_order, up_hosts
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.members import read_members, warn_of_foreign
from service_monitor.recipes.timings import Timings
from service_monitor.recipes.trouble import FAILURES, Trouble, failure_text
from service_monitor.records import hosts_prefix, members_prefix
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)

HOSTS = "SERVICE_MONITOR_HOSTS"
TOKEN = "SERVICE_MONITOR_LEASE_TOKEN"
FIRST = "SERVICE_MONITOR_FIRST"
MEMBERS = "SERVICE_MONITOR_MEMBERS"
_OURS = (HOSTS, TOKEN, FIRST, MEMBERS, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Not passed on: the command is ready when we say so."""


@dataclass(frozen=True)
class Others:
    """What is known of the others of the cluster when COMMAND is started."""

    hosts: list[str] | None = None
    """Those that are up; None if nobody knows."""
    members: list[str] | None = None
    """All that the label remembers, whoever is up; None if nobody knows."""
    founds: bool = False
    """Whether COMMAND is to found the cluster."""


def environment(
    environ: Mapping[str, str], lease: Lease | None, others: Others
) -> dict[str, str]:
    """Return what COMMAND finds in its environment; without hosts if nobody knows."""
    passed = {name: value for name, value in environ.items() if name not in _OURS}
    passed[FIRST] = "1" if others.founds else "0"
    if lease:
        passed[TOKEN] = str(lease.token)
    if others.hosts is not None:
        passed[HOSTS] = ",".join(others.hosts)
    if others.members is not None:
        passed[MEMBERS] = ",".join(others.members)
    return passed


class Joining:
    """The look at who is up, between the grant of the lease and the start."""

    def __init__(
        self,
        store: Store,
        request: Request,
        arrival: Arrival,
        founding: Founding,
        notifier: Notifier,
        stop: Stop,
        check: Callable[[], None],
        timings: Timings,
    ) -> None:
        """Call `check` before each look: it raises where the start is to end."""
        self._store = store
        self._request = request
        self._arrival = arrival
        self._founding = founding
        self._notifier = notifier
        self._stop = stop
        self._check = check
        self._timings = timings
        self._told = ""
        self._warned: set[str] = set()

    def others(self, lease: Lease | None, held: StartupLease) -> Others:
        """Return who is up, but for an earlier life of this service.

        Without the lease it may be that nobody knows, which is logged. With it this
        blocks until it is known, an outage, missing signs of life of others and the
        founding by another one included. Raises `LeaseLost` if the lease ends
        meanwhile, and `IdInUse`.
        """
        trouble = Trouble("trying again", self._timings)
        while True:
            self._check()
            try:
                if lease is None:
                    return self._read()
                found = self._look(lease, waited=held.lapsed)
            except FAILURES as error:
                if lease is None:
                    log.warning("whom to join is not known, starting anyway: %s", error)
                    return Others()
                if held.lapsed:
                    raise self.too_late(held) from error
                trouble.met(error)
                found = f"its turn has come; {failure_text(error)}"
            if isinstance(found, Others):
                return found
            if held.lapsed:
                raise self.too_late(held)
            self._notifier.status(found)
            self._stop.wait(self._timings.store_retry)

    def _look(self, lease: Lease, *, waited: bool) -> Others | str:
        """Look once; return what is still waited for if that is anything."""
        unsure = self._arrival.unsure(lease)
        others = self._read()
        hosts = others.hosts or []
        if unsure and not waited:
            self._arrival.tell(unsure)
            return awaiting(unsure)
        role = self._founding.role(hosts)
        if isinstance(role, bool):
            return replace(others, founds=role)
        self._tell(role)
        return f"its turn has come; waiting, {role}"

    def _tell(self, why: str) -> None:
        if why != self._told:
            log.warning(
                "label %s: its turn has come; waiting, %s", self._request.label, why
            )
        self._told = why

    def _read(self) -> Others:
        """Read who is up and who is remembered, but for this service itself."""
        label, own = self._request.label, self._request.service_id
        prefixes = hosts_prefix(label), members_prefix(label)
        found = [
            [r for r in self._store.list(prefix).records if r.key != prefix + own]
            for prefix in prefixes
        ]
        remembered = read_members(record for records in found for record in records)
        warn_of_foreign(remembered, self._warned)
        known = (e for e in remembered.entries if e.member or e.state == "up")
        return Others(
            up_hosts(found[0], warned=self._warned),
            in_order((each.host, each.port) for each in known),
        )

    def too_late(self, held: StartupLease) -> LeaseLost:
        """Return the error that says why COMMAND may not be started any more."""
        return LeaseLost(
            f"label {self._request.label}: the lease ended before the command was "
            f"started ({held.why_lapsed()}): start again"
        )

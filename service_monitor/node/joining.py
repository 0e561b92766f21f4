"""In its turn, find out whom COMMAND is to join, and tell it in its environment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from service_monitor.errors import LeaseLost
from service_monitor.net.stop import Stop
from service_monitor.node.notify import Notifier
from service_monitor.node.startup_lease import StartupLease
from service_monitor.recipes.arrival import Arrival, awaiting
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.timings import Timings
from service_monitor.recipes.trouble import FAILURES, Trouble, failure_text
from service_monitor.records import hosts_prefix
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)

HOSTS = "SERVICE_MONITOR_HOSTS"
TOKEN = "SERVICE_MONITOR_LEASE_TOKEN"
FIRST = "SERVICE_MONITOR_FIRST"
_OURS = (HOSTS, TOKEN, FIRST, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Not passed on: the command is ready when we say so."""


def environment(
    environ: Mapping[str, str],
    lease: Lease | None,
    hosts: list[str] | None,
    *,
    founds: bool,
) -> dict[str, str]:
    """Return what COMMAND finds in its environment; without hosts if nobody knows."""
    passed = {name: value for name, value in environ.items() if name not in _OURS}
    passed[FIRST] = "1" if founds else "0"
    if lease:
        passed[TOKEN] = str(lease.token)
    if hosts is not None:
        passed[HOSTS] = ",".join(hosts)
    return passed


class Joining:
    """The look at who is up, between the grant of the lease and the start."""

    def __init__(
        self,
        store: Store,
        request: Request,
        arrival: Arrival,
        notifier: Notifier,
        stop: Stop,
        check: Callable[[], None],
        timings: Timings,
    ) -> None:
        """Call `check` before each look: it raises where the start is to end."""
        self._store = store
        self._request = request
        self._arrival = arrival
        self._notifier = notifier
        self._stop = stop
        self._check = check
        self._timings = timings

    def others(self, lease: Lease | None, held: StartupLease) -> list[str] | None:
        """Return the hosts that are up, but for an earlier life of this service.

        None, and logged, if that is not known. With the lease it blocks until it is, an
        outage and missing signs of life of others included. Raises `LeaseLost` if the
        lease ends meanwhile, and `IdInUse`.
        """
        prefix = hosts_prefix(self._request.label)
        trouble = Trouble("trying again", self._timings)
        while True:
            self._check()
            try:
                unsure = self._arrival.unsure(lease) if lease else []
                found = self._store.list(prefix).records
            except FAILURES as error:
                if lease is None:
                    log.warning("whom to join is not known, starting anyway: %s", error)
                    return None
                if held.lapsed:
                    raise self.too_late(held) from error
                trouble.met(error)
                self._notifier.status(f"its turn has come; {failure_text(error)}")
                self._stop.wait(trouble.pause())
                continue
            if unsure and not held.lapsed:
                self._arrival.tell(unsure)
                self._notifier.status(awaiting(unsure))
                self._stop.wait(self._timings.store_retry)
                continue
            own = self._request.hosts_key
            return up_hosts(record for record in found if record.key != own)

    def too_late(self, held: StartupLease) -> LeaseLost:
        """Return the error that says why COMMAND may not be started any more."""
        return LeaseLost(
            f"label {self._request.label}: the lease ended before the command was "
            f"started ({held.why_lapsed()}): start again"
        )

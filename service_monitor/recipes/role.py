"""Whether the start that a script makes founds the cluster, or joins it."""

from __future__ import annotations

from service_monitor.errors import LeaseLost
from service_monitor.net.stop import Stop
from service_monitor.recipes.claim import Founding
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.reporter import Reporter
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, Trouble, failure_text
from service_monitor.records import hosts_prefix
from service_monitor.stores.base import Store
from service_monitor.timing import now


def is_founder(
    store: Store,
    request: Request,
    lease: Lease,
    founding: Founding,
    stop: Stop,
    reporter: Reporter,
    timings: Timings = TIMINGS,
) -> bool:
    """Tell whether this start founds. Outages are waited out while the lease lasts.

    Raises `LeaseLost` if it ends before that is known, and `Stopped`.
    """
    prefix, trouble = hosts_prefix(request.label), Trouble("trying again", timings)
    while True:
        stop.check()
        reporter.passing()
        try:
            others = store.list(prefix).records
            up = up_hosts(each for each in others if each.key != request.hosts_key)
            role = founding.role(up)
            trouble.over()
        except FAILURES as error:
            trouble.met(error)
            role = failure_text(error)
        left = lease.deadline - now()
        if left <= 0:
            raise LeaseLost(
                f"label {request.label}: the lease ended before it was known whether "
                f"this start founds: {role}"
            )
        if isinstance(role, bool):
            return role
        reporter.queued(f"its turn has come; waiting, {role}")
        stop.wait(min(timings.store_retry, left))

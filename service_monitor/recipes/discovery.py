"""Whom to join: the hosts that are up, and what a record of others may say of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator

from service_monitor.errors import (
    StoreRefused,
    WaitTimeout,
)
from service_monitor.net.addresses import is_host, is_nowhere, with_port
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.net.stop import Stop
from service_monitor.recipes.trouble import FAILURES, Failure, Trouble
from service_monitor.records import (
    Record,
    Registration,
    hosts_prefix,
)
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)

_LOOK = 5.0
"""Seconds between two looks while waiting for hosts, if no change wakes us before."""

_PACE = 0.05


def registrations(
    records: Iterable[Record], warned: set[str] | None = None
) -> Iterator[tuple[Record, Registration]]:
    """Give those that name a host which somebody could connect to.

    A host goes into command lines and lists: a comma, a blank or an escape code of a
    foreign tool would become somebody else's option. What is left aside is warned of,
    once for all calls that share `warned`.
    """
    for record in records:
        found = Registration.from_json(record.value)
        if found is None:
            continue
        if is_joinable(found.host):
            yield record, found
        elif warned is None or record.key not in warned:
            log.warning("%s names no valid host: left aside", record.key)
            if warned is not None:
                warned.add(record.key)


def is_joinable(host: str) -> bool:
    """Tell whether it is a name, or an address that a service can have."""
    return is_host(host) and not is_nowhere(host)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts 10.0.0.2 before 10.0.0.10, and es-2 before es-10."""
    parts = re.findall(r"(\d+)|(\D+)", text, re.ASCII)
    return [(0, int(num), num) if num else (1, 0, word) for num, word in parts]


def up_hosts(
    records: Iterable[Record], port: int | None = None, warned: set[str] | None = None
) -> list[str]:
    """Return the hosts of registrations that are up, each once, naturally sorted.

    As HOST:PORT where one is registered, or `port` is given for those that have none.
    """
    found = registrations(records, warned)
    places = {(each.host, each.port or port) for _, each in found if each.up}
    ordered = sorted(places, key=lambda place: (natural(place[0]), place[1] or 0))
    return [with_port(*place) for place in ordered]


def wait_for_hosts(
    store: Store,
    label: str,
    at_least: int,
    timeout: float,
    bounds: Bounds,
    port: int | None = None,
) -> list[str]:
    """Block until that many hosts are up; return all that are, as `up_hosts` does.

    The last look is at the deadline. Outages of the store are waited out. Raises
    `WaitTimeout` after `timeout` seconds, or the `StoreError` or `LocalLack` if that
    was the trouble then, and `Stopped`; and `StoreRefused` at once from a store that
    never served us.
    """
    with bounds.within(timeout + STOP_GRACE):
        return _wait_for_hosts(store, label, at_least, timeout, bounds.stop, port)


def _wait_for_hosts(
    store: Store,
    label: str,
    at_least: int,
    timeout: float,
    stop: Stop,
    port: int | None,
) -> list[str]:
    deadline = now() + timeout
    trouble, served = Trouble("trying on"), False
    warned: set[str] = set()
    while True:
        hosts: list[str] = []
        failure: Failure | None = None
        over = now() >= deadline
        try:
            snapshot = store.list(hosts_prefix(label))
            served = True
            hosts = up_hosts(snapshot.records, port, warned)
            if len(hosts) >= at_least:
                return hosts
            if not over:
                left = max(0.0, min(_LOOK, deadline - now()))
                store.wait(hosts_prefix(label), snapshot, left)
            trouble.over()
        except FAILURES as error:
            if isinstance(error, StoreRefused) and not served:
                raise
            trouble.met(error)
            failure = error
            if not over:
                stop.wait(min(1.0, max(0.0, deadline - now())))
        stop.check()
        if over:
            if failure is not None:
                raise failure
            raise WaitTimeout(
                f"label {label}: {len(hosts)} of {at_least} hosts up after "
                f"{format_duration(timeout)}: {', '.join(hosts) or 'none'}"
            )
        # A wait is a hint and may return at once: never spin.
        stop.wait(min(_PACE, max(0.0, deadline - now())))

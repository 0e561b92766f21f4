"""Whom to join: the hosts that are up, read from records that anybody may write."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from service_monitor.errors import WaitTimeout
from service_monitor.net.addresses import is_host, is_nowhere, with_port
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.net.stop import Stop
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, Trouble
from service_monitor.records import Record, Registration, hosts_prefix
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

log = logging.getLogger(__name__)


def registrations(
    records: Iterable[Record], warned: set[str] | None = None
) -> Iterator[tuple[Record, Registration]]:
    """Give the registrations that name a host to which somebody could connect.

    A host goes into command lines and lists: a comma, a blank or an escape code that
    another tool wrote would become an option of some command. What is left aside is
    warned of: once a key for all calls that share `warned`, whose keys they add.
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
    """Tell whether `host` is a name, or an address that a service can have."""
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
    return in_order((each.host, each.port or port) for _, each in found if each.up)


def in_order(places: Iterable[tuple[str, int | None]]) -> list[str]:
    """Return hosts, or HOST:PORT, each once, naturally sorted."""
    ordered = sorted(set(places), key=lambda place: (natural(place[0]), place[1] or 0))
    return [with_port(*place) for place in ordered]


@dataclass(frozen=True)
class Search:
    """Which hosts of a label to look for: in what records, and how to find them."""

    prefix: str
    """What the records' keys begin with."""
    state: str
    """What the hosts are, in words."""
    find: Callable[[Iterable[Record], set[str]], list[str]]
    """Given the records, and the keys that were warned of: it adds to these."""


def search_up(label: str, port: int | None = None) -> Search:
    """Return the search for the hosts that are up, as `up_hosts` finds them."""
    return Search(
        hosts_prefix(label),
        "up",
        lambda records, warned: up_hosts(records, port, warned),
    )


def wait_for_hosts(
    store: Store,
    label: str,
    at_least: int,
    timeout: float,
    bounds: Bounds,
    port: int | None = None,
    timings: Timings = TIMINGS,
    search: Search | None = None,
) -> list[str]:
    """Block until that many hosts are up; return all that are, as `up_hosts` does.

    With a `search` block until it finds that many, whose `port` then is the search's.
    The last look is at the deadline, `timeout` seconds from now. If too few are up then
    it raises `WaitTimeout`, or if that look failed its `StoreError` or `LocalLack`.
    Outages of the store before that are waited out. Raises `Stopped`, and
    `StoreRefused` at once from a store that never served us.
    """
    with bounds.within(timeout + STOP_GRACE):
        wanted = search or search_up(label, port)
        return _until_found(
            store, label, wanted, at_least, timeout, bounds.stop, timings
        )


def _until_found(
    store: Store,
    label: str,
    search: Search,
    at_least: int,
    timeout: float,
    stop: Stop,
    timings: Timings,
) -> list[str]:
    deadline = now() + timeout
    trouble = Trouble("trying on", timings, refusal_ends=True)
    warned: set[str] = set()
    while True:
        hosts: list[str] = []
        over = now() >= deadline
        try:
            snapshot = store.list(search.prefix)
            trouble.served()
            hosts = search.find(snapshot.records, warned)
            if len(hosts) >= at_least:
                return hosts
            if not over:
                left = max(0.0, min(timings.look_hosts, deadline - now()))
                store.wait(search.prefix, snapshot, left)
            trouble.over()
        except FAILURES as error:
            trouble.met(error)
            if not over:
                stop.wait(min(trouble.pause(), max(0.0, deadline - now())))
        stop.check()
        if over:
            if trouble.failure is not None:
                raise trouble.failure
            raise WaitTimeout(
                f"label {label}: {len(hosts)} of {at_least} hosts {search.state} "
                f"after {format_duration(timeout)}: {', '.join(hosts) or 'none'}"
            )
        # A wait is a hint and may return at once: never spin.
        stop.wait(min(timings.pace, max(0.0, deadline - now())))

"""Whom to join, and what a record that others wrote may say of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from service_monitor.addresses import is_host, is_nowhere
from service_monitor.records import Record, Registration

log = logging.getLogger(__name__)


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

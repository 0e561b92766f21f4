"""Say when a service id is used on two hosts, and that one of them waits.

No I/O. Nothing is resolved: two spellings of one address are one host, a name and an
address are two.
"""

from __future__ import annotations

from service_monitor.net.addresses import canonical
from service_monitor.records import Registration, Ticket
from service_monitor.text import printable
from service_monitor.timing import format_duration


def same_host(one: str, other: str) -> bool:
    """Tell whether both are spellings of one name or of one address."""
    return _plain(one) == _plain(other)


def _plain(host: str) -> str:
    return canonical(host.strip().strip("[]").rstrip(".").lower())


def queued_elsewhere(ticket: Ticket, waiter_ttl: float) -> str:
    """Say on which host a ticket has its service id, and what would end that."""
    does = "holds the lease" if ticket.held else "waits in the queue"
    within = format_duration(ticket.lease_timeout if ticket.held else waiter_ttl)
    return (
        f"{_in_use(ticket.service_id, ticket.host)}, where it {does}: give each node "
        f"an id of its own, or if that host is gone: `release-lease --force` or wait "
        f"up to {within}"
    )


def registered_elsewhere(found: Registration) -> str:
    """Say on which host a registration has its service id, and what would end that."""
    return (
        f"{_in_use(found.service_id, found.host)}, where it is registered as "
        f"{found.state}: give each node an id of its own, or stop the other one; if "
        "that host is gone, wait until the record lapses, within its --ttl"
    )


def _in_use(service_id: str, host: str) -> str:
    return f"service id {printable(service_id)} is in use on host {printable(host)}"

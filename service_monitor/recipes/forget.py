"""Take a member out of what its label remembers."""

from __future__ import annotations

from service_monitor.errors import Conflict, StillLives
from service_monitor.records import (
    Record,
    Registration,
    Ticket,
    label_prefix,
    member_key,
    registration_key,
    ticket_key,
)
from service_monitor.stores.base import Store


def forget(store: Store, label: str, service_id: str) -> bool:
    """Remove a member that is gone; return whether there was one.

    What another tool wrote under its key is removed likewise. Blocks for two calls to
    the store. Raises `StillLives`, with nothing removed, and `StoreError`.
    """
    found = {each.key: each for each in store.list(label_prefix(label)).records}
    if life := _sign_of_life(found, label, service_id):
        host, does = life
        raise StillLives(
            f"label {label}: {service_id} lives on {host}, as it {does}: stop it first"
        )
    member = found.get(member_key(label, service_id))
    if member is None:
        return False
    try:
        store.delete(member)
    except Conflict as error:  # only the member itself writes there
        raise StillLives(
            f"label {label}: {service_id} wrote to its record meanwhile, so it lives: "
            "stop it first"
        ) from error
    return True


def _sign_of_life(
    found: dict[str, Record], label: str, service_id: str
) -> tuple[str, str] | None:
    """Return where it lives and what shows that; None if nothing does.

    Any record that would end by itself shows it, also one that cannot be read.
    """
    if record := found.get(registration_key(label, service_id)):
        registered = Registration.from_json(record.value)
        return _host(registered), "is registered"
    if record := found.get(ticket_key(label, service_id)):
        ticket = Ticket.from_json(record.value)
        holds = ticket is not None and ticket.held
        does = "holds" if holds else "waits for"
        return _host(ticket), f"{does} the startup lease"
    return None


def _host(record: Registration | Ticket | None) -> str:
    return record.host if record else "an unknown host"

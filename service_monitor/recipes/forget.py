"""Take a member out of what its label remembers."""

from __future__ import annotations

from service_monitor.errors import Conflict, StillLives
from service_monitor.recipes.life import Life, sign_of_life
from service_monitor.records import (
    Record,
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
    if life := _living(found, label, service_id):
        raise StillLives(
            f"label {label}: {service_id} lives on {life.host}, as it {_does(life)}: "
            "stop it first"
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


def _living(found: dict[str, Record], label: str, service_id: str) -> Life | None:
    """Return what shows first that it lives; None if nothing does."""
    for key in registration_key(label, service_id), ticket_key(label, service_id):
        if key in found:
            return sign_of_life(found[key])
    return None


def _does(life: Life) -> str:
    if life.registered is not None:
        return "is registered"
    return f"{'holds' if life.holds else 'waits for'} the startup lease"

"""Forget who founded a label, and its members: by hand, while nobody lives there."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.errors import Conflict, StillLives
from service_monitor.recipes.founder import Founder, founder_key
from service_monitor.recipes.life import Life, sign_of_life
from service_monitor.recipes.retry import look_again
from service_monitor.records import Record, key_parts, label_prefix
from service_monitor.stores.base import Store
from service_monitor.text import printable


@dataclass(frozen=True)
class Remains:
    """What the store remembers of a label, and who lives there."""

    founder: Record | None
    members: tuple[Record, ...]
    alive: tuple[str, ...]
    """A few words for each that is registered, holds the lease or waits for it."""

    def __str__(self) -> str:
        """Say in one line what would be forgotten."""
        parts = []
        if self.founder is not None:
            found = Founder.from_json(self.founder.value)
            parts.append(
                f"the founder {printable(found.service_id)} ({found.state} since "
                f"{printable(found.since)})"
                if found
                else "a founder that cannot be read"
            )
        if self.members:
            names = ", ".join(printable(key_parts(r.key)[2]) for r in self.members[:5])
            more = ", ..." if len(self.members) > 5 else ""
            many = "members" if len(self.members) > 1 else "member"
            parts.append(f"{len(self.members)} {many} ({names}{more})")
        return " and ".join(parts) or "nothing"


def remains(store: Store, label: str) -> Remains:
    """Look what there is; one call. Raises `StoreError`."""
    founder, members, alive = None, [], []
    for record in store.list(label_prefix(label)).records:
        _, kind, _ = key_parts(record.key)
        if record.key == founder_key(label):
            founder = record
        elif kind == "members":
            members.append(record)
        elif life := sign_of_life(record):
            alive.append(_does(life))
    return Remains(founder, tuple(members), tuple(printable(a) for a in alive))


def _does(life: Life) -> str:
    if life.registered is not None:
        return f"{life.service_id} is registered as {life.registered}"
    return f"{life.service_id} {'holds the lease' if life.holds else 'waits for it'}"


def reset(store: Store, label: str) -> Remains:
    """Forget the founder and the members of a label; return what that was.

    The founder last: a label that remembers nobody and nothing may be founded. Blocks
    for a call for each member. Raises `StillLives` while anybody is registered there,
    or holds or waits for the lease; and `StoreError`.
    """
    first = remains(store, label)

    def forget() -> None:
        left = remains(store, label)
        if left.alive:
            raise StillLives(
                f"label {label}: {', '.join(left.alive[:5])}: stop all nodes of the "
                "label, their `watch`, too, before you reset it"
            )
        for record in left.members:
            store.delete(record)
        if left.founder is not None:
            if left.members:
                raise Conflict(left.founder)  # look once more who lives
            store.delete(left.founder)

    look_again(forget, founder_key(label))
    return first

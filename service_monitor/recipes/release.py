"""Give a lease back by hand: whoever holds it, or one acquisition."""

from __future__ import annotations

from service_monitor.errors import Conflict, HeldByAnother, StoreUnavailable
from service_monitor.recipes.session import TRIES
from service_monitor.records import Ticket, lease_prefix
from service_monitor.stores.base import Store


def release(
    store: Store,
    label: str,
    service_id: str,
    token: int | None = None,
    *,
    force: bool = False,
) -> bool:
    """Give this service id's lease back; return whether there was one.

    With a token only that very acquisition. A ticket that still waits belongs to a
    living `acquire-lease` and stays; `force` removes whatever there is. Raises
    `HeldByAnother` and `StoreError`.
    """
    key = lease_prefix(label) + service_id
    for _ in range(TRIES):
        records = store.list(key).records
        if not records:
            return False
        ticket, version = Ticket.from_json(records[0].value), records[0].version
        if not force and not (ticket and ticket.held):
            return False
        if token not in (None, version) and not force:
            raise HeldByAnother(
                f"label {label}: {service_id} holds the lease with token {version}, "
                f"not {token}: a newer start of it. Use that token, or --force"
            )
        try:
            store.delete(records[0])
        except Conflict as error:
            if force:
                continue
            raise HeldByAnother(
                f"label {label}: {service_id} acquired the lease anew meanwhile (token "
                f"{error.record.version}): that one is not released"
            ) from error
        return True
    raise StoreUnavailable(f"{key} changes between any two looks")

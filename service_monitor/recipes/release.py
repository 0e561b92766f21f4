"""Take back what is in the store: a lease by hand, or a record of our own."""

from __future__ import annotations

from service_monitor.errors import Conflict, HeldByAnother
from service_monitor.recipes.retry import TRIES, look_again
from service_monitor.records import Ticket, nonce_of, ticket_key
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
    living `acquire-lease` and stays; `force` removes whatever there is. Blocks for a
    few calls to the store. Raises `HeldByAnother` and `StoreError`.
    """
    key = ticket_key(label, service_id)

    def attempt() -> bool:
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
                raise  # look again
            raise HeldByAnother(
                f"label {label}: {service_id} acquired the lease anew meanwhile (token "
                f"{error.record.version}): that one is not released"
            ) from error
        return True

    return look_again(attempt, key)


def remove_own(store: Store, key: str, nonce: str, tries: int = TRIES) -> bool:
    """Delete the record under `key` if its nonce is ours; return whether it was there.

    Blocks for a few calls to the store. Raises `StoreError`.
    """

    def attempt() -> bool:
        records = store.list(key).records
        if not records or nonce_of(records[0].value) != nonce:
            return False
        store.delete(records[0])  # a conflict: a renewal of ours was still on its way
        return True

    return look_again(attempt, key, tries)

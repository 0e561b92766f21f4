"""Whether a service with DynamoDB's API has transactions, which every write needs.

Work-alikes without them answer every read: where nobody is listed this asks, since
"nobody" would be a wrong answer where nobody ever can be.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from service_monitor.errors import StoreRefused
from service_monitor.stores.dynamodb.exchange import Exchange, Unmet
from service_monitor.stores.dynamodb.expressions import any_item
from service_monitor.stores.dynamodb.refusals import UnknownOperation

BY_TRANSACTION = "last_key"
"""The counter's attribute that no other write ever sets."""


class Transactions:
    """What is known of them; asked at most once."""

    def __init__(self, at_counter: dict[str, Any]) -> None:
        self._at_counter = at_counter
        self.known = False

    def check(self, exchange: Exchange) -> None:
        """Raise `UnknownOperation` if the service has no transactions."""
        if self.known:
            return
        found = exchange("get_item", ConsistentRead=True, **self._at_counter)
        if BY_TRANSACTION not in found.get("Item", {}):
            require_transactions(exchange, self._at_counter)
        self.known = True


def require_transactions(exchange: Exchange, at_counter: dict[str, Any]) -> None:
    """Send a transaction that writes nothing.

    Raises `UnknownOperation`; any other answer shows that transactions are known there.
    """
    check = {"ConditionCheck": at_counter | any_item()}
    try:
        with suppress(Unmet):
            exchange("transact_write_items", TransactItems=[check])
    except UnknownOperation:
        raise
    except StoreRefused:
        pass  # as by a role that may read alone, or of a table that is not there yet

"""The numbers of records: one counter item, raised in the same transaction as a write.

A transaction's items may become readable one after the other, so each one also checks
the record that the last one wrote: it fails while that is still on its way, and whoever
has a number has everything before it to read.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from service_monitor.stores.dynamodb.exchange import Exchange, Unmet
from service_monitor.stores.dynamodb.expressions import (
    Item,
    any_item,
    as_number,
    setting,
)
from service_monitor.stores.dynamodb.items import PARTITION, SORT, Items
from service_monitor.stores.dynamodb.refusals import UnknownOperation
from service_monitor.stores.dynamodb.transactions import Transactions


class Numbers:
    """The counter of a table and prefix. Its calls block and raise as `Exchange`'s."""

    def __init__(self, items: Items, transactions: Transactions) -> None:
        self._items = items
        self._transactions = transactions
        self._unanswered: int | None = None  # the number of a write without an answer

    def next(self, exchange: Exchange) -> tuple[int, Item | None]:
        """Return the next number, and where the record is that got the last one."""
        found = exchange("get_item", **self._items.at_counter, ConsistentRead=True)
        item = found.get("Item")
        if item is None:
            return 1, None
        self._items.check_counter(item)
        last = None
        if "last_key" in item:
            last = {PARTITION: item["last_label"], SORT: item["last_key"]}
        return int(item["n"]["N"]) + 1, last

    def commit(
        self,
        exchange: Exchange,
        number: int,
        last: Item | None,
        key: str,
        write: dict[str, dict[str, Any]],
    ) -> bool:
        """Write a record and take the number for it, both or none; tell which.

        `number` and `last` are as `next` gave them.
        """
        address = self._items.address(key)
        changes = {"last_label": address[PARTITION], "last_key": address[SORT]}
        items = [{"Update": self._count(number, changes)}, write]
        if last and last != address:
            check = {"Key": last} | self._items.table | any_item()
            items.append({"ConditionCheck": check})
        sent, self._unanswered = exchange.sent, number
        try:
            exchange("transact_write_items", TransactItems=items)
        except Unmet as unmet:
            # If its number is still free an earlier try may yet arrive, and take it.
            if exchange.sent == sent + 1 or unmet.codes[0] != "None":
                self._unanswered = None
            return False
        except UnknownOperation:  # that one will not arrive: use up no number
            self._unanswered = None
            raise
        self._unanswered = None
        self._transactions.known = True
        return True

    def settle(self, exchange: Exchange) -> None:
        """Let a write without an answer come to nothing, if it has not arrived yet.

        What is read then stays true: nothing of ours can still turn up after it.
        """
        if self._unanswered is not None:
            with suppress(Unmet):  # its number is taken, by itself or by another one
                exchange("update_item", **self._count(self._unanswered, {}))
            self._unanswered = None

    def _count(self, number: int, changes: Item) -> dict[str, Any]:
        """Say how to raise the counter to the next number, if that is still free."""
        free, values = "attribute_not_exists(#n)", {}
        if number > 1:
            free, values = "#n = :was", {"was": as_number(number - 1)}
        return self._items.at_counter | setting(
            changes | {"n": as_number(number)}, free, values
        )

"""Items of the table: where the record of a key is, and what it looks like there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from service_monitor.errors import StoreRefused
from service_monitor.records import NAME, Record
from service_monitor.stores.dynamodb.expressions import Item, as_number, expressions
from service_monitor.stores.dynamodb.place import DynamoPlace
from service_monitor.text import quoted

PARTITION, SORT = "label", "key"
"""The table's key."""
TTL = "litter_after"
"""The attribute by which DynamoDB cleans up, some day; nothing rests on it."""

_WHOLE = re.compile("[0-9]{1,38}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,38}(\.[0-9]{1,38})?(E[+-]?[0-9]{1,3})?", re.ASCII)
_ANY = re.compile(".*", re.DOTALL)
_RECORD = {
    "value": ("S", _ANY),
    "created": ("N", _WHOLE),
    "version": ("N", _WHOLE),
}
"""The attributes of a record beside its key: their types, and what they hold."""
_ENDS = {"alive_until": ("N", _NUMBER), "dead_after": ("N", _NUMBER)}
"""Those of a record that has a ttl; a durable one has none of them."""
_COUNTER = {"n": ("N", _WHOLE)}


class Items:
    """The items of one table that are under our prefix."""

    def __init__(self, place: DynamoPlace, where: str) -> None:
        self.table = {"TableName": place.table}
        self._where = where
        self._prefix = f"{place.prefix}/".lstrip("/")
        counter = {PARTITION: {"S": f"{self._prefix}#"}, SORT: {"S": "counter"}}
        self.at_counter: dict[str, Any] = {"Key": counter} | self.table

    def address(self, key: str) -> Item:
        """Return the table's key of a record."""
        label, _, rest = key.partition("/")
        return {PARTITION: {"S": self._prefix + label}, SORT: {"S": rest}}

    def at(self, key: str) -> dict[str, Any]:
        """Return the parameters that name the item of a record."""
        return {"Key": self.address(key)} | self.table

    def record(self, item: Item) -> Record:
        """Read a record from an item that has the shape of one."""
        label = item[PARTITION]["S"].removeprefix(self._prefix)
        return Record(
            key=f"{label}/{item[SORT]['S']}",
            value=item["value"]["S"],
            created=int(item["created"]["N"]),
            version=int(item["version"]["N"]),
        )

    def check_record(self, item: Item) -> None:
        """Raise `StoreRefused` for what is no record of ours, where one belongs."""
        if not _is_record(item):
            raise self._in_the_way(item)

    def check_counter(self, item: Item) -> None:
        """Raise `StoreRefused` for what is no counter of ours, where it belongs."""
        if not _has(item, _COUNTER):
            raise self._in_the_way(item)

    def is_ours(self, item: Item) -> bool:
        """Tell a record from a counter, what is under another prefix, a stranger's."""
        label = item[PARTITION]["S"]
        ours = label.startswith(self._prefix) and _is_record(item)
        return ours and NAME.fullmatch(label[len(self._prefix) :]) is not None

    def below(self, prefix: str) -> dict[str, Any]:
        """Return the parameters of a query for all below a prefix, or of a scan."""
        which: dict[str, Any] = {}
        if prefix:
            label, _, rest = prefix.partition("/")
            where = f"#{PARTITION} = :label"
            values = {"label": {"S": self._prefix + label}}
            if rest:
                where += f" AND begins_with(#{SORT}, :rest)"
                values["rest"] = {"S": rest}
            which = expressions(where, values, "KeyConditionExpression")
        return which | {"ConsistentRead": True} | self.table

    def _in_the_way(self, item: Item) -> StoreRefused:
        label, key = (item[name]["S"] for name in (PARTITION, SORT))
        return StoreRefused(
            f"{self._where}: the item with {PARTITION} {quoted(label)} and {SORT} "
            f"{quoted(key)} is not what we write there: delete it"
        )


def identity(record: Record) -> Item:
    """Return the values that name a record as it was read."""
    return {"created": as_number(record.created), "version": as_number(record.version)}


def is_durable(item: Item) -> bool:
    """Tell whether an item is that of a record without ttl."""
    return not any(name in item for name in (*_ENDS, TTL))


def _is_record(item: Item) -> bool:
    return _has(item, _RECORD) and (is_durable(item) or _has(item, _ENDS))


def _has(item: Item, shape: Mapping[str, tuple[str, re.Pattern[str]]]) -> bool:
    """Tell whether an item has these attributes, or is somebody else's."""
    for name, (kind, pattern) in shape.items():
        found = item.get(name, {}).get(kind)
        if found is None or not pattern.fullmatch(found):
            return False
    return True

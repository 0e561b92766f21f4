"""Amazon DynamoDB as the store: one table, one item for each record.

`created` and `version` come from one counter item, written in the same transaction as
the record. A transaction's items may become readable one after the other, so each one
also checks the record that the last one wrote: it fails while that is still on its way,
and whoever has a number has everything before it to read.

A record carries two ends: until the first it surely lives, after the second it is
surely dead, by the bounds that its writer knew of the store's time. Who finds it dead
deletes it, unless it was renewed, before saying so: nobody can bring it back then.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.records import NAME, Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.dynamodb.aws import Aws, Call, Place, Unmet
from service_monitor.stores.dynamodb.expressions import (
    Item,
    as_number,
    expressions,
    setting,
)
from service_monitor.stores.dynamodb.refusals import UnknownOperation
from service_monitor.stores.dynamodb.transactions import Transactions
from service_monitor.stores.etcd.endpoints import Failover
from service_monitor.text import quoted
from service_monitor.timing import now

PARTITION, SORT = "label", "key"
"""The table's key."""
TTL = "litter_after"
"""The attribute by which DynamoDB cleans up, some day; nothing rests on it."""
_LITTER = 86400
"""Seconds from a record's end until then."""

FAST, SLOW, SLOWEST = 0.25, 2.0, 8.0
"""Seconds between two looks while waiting, by the number of records ahead."""
MANY = 8
"""From so many on it is the slowest: one's caller lists again sooner than that."""

_RECORD = {"value": "S"} | dict.fromkeys(
    ("created", "version", "alive_until", "dead_after"), "N"
)
"""The attributes of a record beside its key, and their types."""

_UNCHANGED = "#created = :created AND #version = :version"
_LIVES, _DEAD = "#dead_after > :now", "#dead_after <= :now"


class DynamoStore:
    """The store primitives on a DynamoDB table."""

    def __init__(self, place: Place, bounds: Bounds) -> None:
        self._aws = Aws(place, bounds)
        self._clock = self._aws.clock
        self._table = {"TableName": place.table}
        self._prefix = f"{place.prefix}/".lstrip("/")
        where = {PARTITION: {"S": f"{self._prefix}#"}, SORT: {"S": "counter"}}
        self._at_counter: dict[str, Any] = {"Key": where} | self._table
        self._bounds = bounds
        self._ours: dict[int, tuple[int, float]] = {}  # by created: version, its end
        self._doubtful: int | None = None  # the number of a write without an answer
        self._transactions = Transactions(self._at_counter)

    def create(self, key: str, value: str, ttl: float) -> Record:
        call = self._aws.begin()
        while True:
            asked = now()
            number, last = self._counter(call)
            item = self._address(key) | {"value": {"S": value}} | self._ends(ttl)
            item |= {"created": as_number(number), "version": as_number(number)}
            condition = f"attribute_not_exists(#{SORT}) OR {_DEAD}"
            put = {"Item": item} | expressions(condition, self._moment())
            if self._commit(call, number, last, key, {"Put": self._table | put}):
                self._ours[number] = number, asked + ttl
                return Record(key, value, number, number)
            found = self._get(call, key)
            if found is not None:
                if found.value != value:
                    raise KeyExists(found)
                return found  # an earlier try of this call came through
            call.again("others write all the time")

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        call = self._aws.begin()
        while True:
            asked = now()
            number, last = self._counter(call)
            changes = {"value": {"S": value}, "version": as_number(number)}
            changes |= {} if ttl is None else self._ends(ttl)
            update = {"Update": self._change(record, changes)}
            if self._commit(call, number, last, record.key, update):
                version, end = self._ours.get(record.created, (0, 0.0))
                if ttl is not None or version == record.version:
                    end = end if ttl is None else asked + ttl
                    self._ours[record.created] = number, end
                return Record(record.key, value, record.created, number)
            found = self._same(call, record)
            if found.version != record.version:
                if found.value != value:
                    raise Conflict(found)
                return found  # an earlier try of this very call came through
            call.again("others write all the time")

    def keep_alive(self, record: Record, ttl: float) -> Record:
        call = self._aws.begin()
        if not self._clock.known:
            self._counter(call)  # for the time that its answer tells
        asked = now()
        try:
            call("update_item", **self._change(record, self._ends(ttl)))
        except Unmet:
            found = self._same(call, record)
            if found.version != record.version:
                raise Conflict(found) from None
            raise RecordGone(record.key) from None
        self._ours[record.created] = record.version, asked + ttl
        return record

    def delete(self, record: Record) -> None:
        call = self._aws.begin()
        condition = expressions(_UNCHANGED, _identity(record))
        try:
            call("delete_item", **self._at(record.key), **condition)
        except Unmet:
            found = self._get(call, record.key)
            if found is not None and found.created == record.created:
                raise Conflict(found) from None

    def list(self, prefix: str) -> Snapshot:
        return self._list(self._aws.begin(), prefix)

    def _list(self, call: Call, prefix: str) -> Snapshot:
        self._settle(call)
        found = (self._alive(call, item) for item in self._read(call, prefix))
        records = [record for record in found if record is not None]
        if not records:  # which is only an answer where somebody could be there
            self._transactions.check(call)
        return Snapshot(tuple(sorted(records, key=lambda record: record.created)))

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        deadline, pause = now() + timeout, interval(prefix, since, timeout)
        before = {r.created: r.version for r in since.records if _under(prefix, r.key)}
        while (left := deadline - now()) > 0:
            self._bounds.stop.wait(min(left, pause * random.uniform(0.75, 1.25)))
            self._bounds.stop.check()
            if (left := deadline - now()) <= 0:
                return  # who called looks next
            try:
                records = self._list(self._aws.begin(left), prefix).records
            except StoreUnavailable:
                if now() >= deadline:
                    return
                raise
            found = {r.created: r.version for r in records}
            if found != before:
                if not gone or not before.keys() <= found.keys():
                    return
                pause = FAST  # what is ahead has got on: it may go any moment

    def prepare(self, ttl: float) -> None:
        """Do nothing: a ttl goes with the write."""

    def time_left(self, record: Record) -> float:
        call = self._aws.begin()
        item = self._item(call, record.key)
        found = item and self._alive(call, item)
        if not item or not found or found.created != record.created:
            return 0.0
        left = float(item["alive_until"]["N"]) - self._clock.latest()
        version, end = self._ours.get(found.created, (0, 0.0))
        if version == found.version:  # our own clock knows better than the store's
            left = max(left, end - now())
        return max(0.0, left)

    def local_address(self) -> str:
        failover = Failover([self._aws.endpoint()])
        return failover.local_address(CALL_TIMEOUT, self._bounds)

    def close(self) -> None:
        self._aws.close()

    # numbers

    def _counter(self, call: Call) -> tuple[int, Item | None]:
        """Return the next number, and where the record is that got the last one."""
        found = call("get_item", **self._at_counter, ConsistentRead=True)
        item = found.get("Item")
        if item is None:
            return 1, None
        if not _has(item, {"n": "N"}):
            raise self._in_the_way(item)
        last = None
        if "last_key" in item:
            last = {PARTITION: item["last_label"], SORT: item["last_key"]}
        return int(item["n"]["N"]) + 1, last

    def _commit(
        self,
        call: Call,
        number: int,
        last: Item | None,
        key: str,
        write: dict[str, dict[str, Any]],
    ) -> bool:
        """Write a record and take the number for it, both or none; tell which."""
        address = self._address(key)
        changes = {"last_label": address[PARTITION], "last_key": address[SORT]}
        items = [{"Update": self._count(number, changes)}, write]
        if last and last != address:
            anything = expressions("attribute_not_exists(#never)", {})
            items.append({"ConditionCheck": {"Key": last} | self._table | anything})
        sent, self._doubtful = call.sent, number
        try:
            call("transact_write_items", TransactItems=items)
        except Unmet as unmet:
            # If its number is still free an earlier try may yet arrive, and take it.
            if call.sent == sent + 1 or unmet.codes[0] != "None":
                self._doubtful = None
            return False
        except UnknownOperation:  # that one will not arrive: use up no number
            self._doubtful = None
            raise
        self._doubtful = None
        self._transactions.known = True
        return True

    def _count(self, number: int, changes: Item) -> dict[str, Any]:
        """Say how to raise the counter to the next number, if that is still free."""
        free, values = "attribute_not_exists(#n)", {}
        if number > 1:
            free, values = "#n = :was", {"was": as_number(number - 1)}
        return self._at_counter | setting(
            changes | {"n": as_number(number)}, free, values
        )

    def _settle(self, call: Call) -> None:
        """Let a write without an answer come to nothing, if it has not arrived yet.

        What is read then stays true: nothing of ours can still turn up after it.
        """
        if self._doubtful is not None:
            with suppress(Unmet):  # its number is taken, by itself or by another one
                call("update_item", **self._count(self._doubtful, {}))
            self._doubtful = None

    # time

    def _ends(self, ttl: float) -> Item:
        latest = self._clock.latest() + ttl
        return {
            "alive_until": as_number(self._clock.earliest() + ttl),
            "dead_after": as_number(latest),
            TTL: as_number(math.ceil(latest) + _LITTER),
        }

    def _moment(self) -> Item:
        return {"now": as_number(self._clock.earliest())}

    def _alive(self, call: Call, item: Item) -> Record | None:
        """Return the item's record; if it is dead, see to it that it stays so."""
        if float(item["dead_after"]["N"]) > self._clock.earliest():
            return self._record(item)
        key = self._record(item).key
        try:
            condition = expressions(_DEAD, self._moment())
            call("delete_item", **self._at(key), **condition)
        except Unmet:  # renewed, made anew or deleted meanwhile
            renewed = self._item(call, key)
            return self._record(renewed) if renewed else None
        return None

    # items

    def _address(self, key: str) -> Item:
        label, _, rest = key.partition("/")
        return {PARTITION: {"S": self._prefix + label}, SORT: {"S": rest}}

    def _at(self, key: str) -> dict[str, Any]:
        return {"Key": self._address(key)} | self._table

    def _record(self, item: Item) -> Record:
        label = item[PARTITION]["S"].removeprefix(self._prefix)
        return Record(
            key=f"{label}/{item[SORT]['S']}",
            value=item["value"]["S"],
            created=int(item["created"]["N"]),
            version=int(item["version"]["N"]),
        )

    def _item(self, call: Call, key: str) -> Item | None:
        found = call("get_item", ConsistentRead=True, **self._at(key))
        item: Item | None = found.get("Item")
        if item and not _has(item, _RECORD):
            raise self._in_the_way(item)
        return item

    def _in_the_way(self, item: Item) -> StoreRefused:
        label, key = (item[name]["S"] for name in (PARTITION, SORT))
        return StoreRefused(
            f"{self._aws.where}: the item with {PARTITION} {quoted(label)} and {SORT} "
            f"{quoted(key)} is not what we write there: delete it"
        )

    def _get(self, call: Call, key: str) -> Record | None:
        item = self._item(call, key)
        return self._alive(call, item) if item else None

    def _same(self, call: Call, record: Record) -> Record:
        found = self._get(call, record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _change(self, record: Record, changes: Item) -> dict[str, Any]:
        values = _identity(record) | self._moment()
        condition = setting(changes, f"{_UNCHANGED} AND {_LIVES}", values)
        return self._at(record.key) | condition

    def _read(self, call: Call, prefix: str) -> Iterator[Item]:
        """Give what is under a prefix: all that is there from before to after."""
        if prefix and not prefix.endswith("/"):
            if item := self._item(call, prefix):
                yield item
            return
        label, _, rest = prefix.partition("/")
        which: dict[str, Any] = {}
        if prefix:
            where = f"#{PARTITION} = :label"
            values = {"label": {"S": self._prefix + label}}
            if rest:
                where += f" AND begins_with(#{SORT}, :rest)"
                values["rest"] = {"S": rest}
            which = expressions(where, values, "KeyConditionExpression")
        which |= {"ConsistentRead": True} | self._table
        while True:
            page = call("query" if prefix else "scan", **which)
            if "Items" not in page:
                raise self._aws.stranger()
            for item in page["Items"]:
                label = item[PARTITION]["S"]
                # Neither a counter, nor what is under another prefix, nor a stranger's.
                ours = label.startswith(self._prefix) and _has(item, _RECORD)
                if ours and NAME.fullmatch(label[len(self._prefix) :]):
                    yield item
            if "LastEvaluatedKey" not in page:
                return
            which["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def interval(prefix: str, since: Snapshot, timeout: float) -> float:
    """Return the seconds between two looks of who waits for `prefix`.

    The more records come before the one waited for, the later can it matter. So however
    many wait, there are some ten looks a second in all. Who waits for a record that is
    not there, such as an idle `watch`, or for several, looks some times in its timeout.
    """
    for ahead, record in enumerate(since.records):
        if record.key == prefix:
            return min(SLOW, FAST * 2**ahead) if ahead < MANY else SLOWEST
    if prefix.endswith("/"):
        return max(FAST, min(SLOW, timeout / 4))
    return max(FAST, min(SLOWEST, timeout / 2.5))


def _has(item: Item, shape: dict[str, str]) -> bool:
    """Tell whether an item has these attributes, or is somebody else's."""
    return all(kind in item.get(name, {}) for name, kind in shape.items())


def _under(prefix: str, key: str) -> bool:
    whole = prefix and not prefix.endswith("/")
    return key == prefix if whole else key.startswith(prefix)


def _identity(record: Record) -> Item:
    return {"created": as_number(record.created), "version": as_number(record.version)}

"""Amazon DynamoDB as the store: one table, one item for each record.

`created` and `version` come from one counter (`numbers`), ends from the store's time
(`lifetimes`). Who finds a record dead deletes it, unless it was renewed, before saying
so: nobody can bring it back then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from service_monitor.errors import Conflict, KeyExists, RecordGone, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT, is_everything_below, matches
from service_monitor.stores.dynamodb.aws import Aws
from service_monitor.stores.dynamodb.exchange import Exchange, Unmet
from service_monitor.stores.dynamodb.expressions import (
    Item,
    as_number,
    expressions,
    setting,
)
from service_monitor.stores.dynamodb.items import SORT, Items, identity
from service_monitor.stores.dynamodb.lifetimes import Lifetimes
from service_monitor.stores.dynamodb.looks import FAST, interval
from service_monitor.stores.dynamodb.numbers import Numbers
from service_monitor.stores.dynamodb.place import DynamoPlace
from service_monitor.stores.dynamodb.transactions import Transactions
from service_monitor.stores.failover import Failover
from service_monitor.stores.primitive import primitive
from service_monitor.timing import now

_UNCHANGED = "#created = :created AND #version = :version"
_LIVES, _DEAD = "#dead_after > :now", "#dead_after <= :now"
_IS_DURABLE = "attribute_not_exists(#dead_after)"


class DynamoStore:
    """The primitives of `Store` on a table, each within `call_timeout` seconds."""

    def __init__(
        self,
        place: DynamoPlace,
        bounds: Bounds,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._bounds = bounds
        self._call_timeout = call_timeout
        self._aws = Aws(place, bounds)
        self._clock = self._aws.clock
        self._items = Items(place, self._aws.where)
        self._transactions = Transactions(self._items.at_counter)
        self._numbers = Numbers(self._items, self._transactions)
        self._lives = Lifetimes(self._clock)

    @primitive
    def create(self, key: str, value: str, ttl: float | None) -> Record:
        exchange = self._begin()
        while True:
            asked = now()
            number, last = self._numbers.next(exchange)
            item = (
                self._items.address(key)
                | {"value": {"S": value}}
                | self._lives.ends(ttl)
            )
            item |= {"created": as_number(number), "version": as_number(number)}
            condition = f"attribute_not_exists(#{SORT}) OR {_DEAD}"
            put = {"Item": item} | expressions(condition, self._lives.moment())
            write = {"Put": self._items.table | put}
            if self._numbers.commit(exchange, number, last, key, write):
                if ttl is not None:
                    self._lives.written(number, number, asked + ttl)
                return Record(key, value, number, number)
            found = self._get(exchange, key)
            if found is not None:
                if found.value != value:
                    raise KeyExists(found)
                return found  # an earlier try of this call came through
            exchange.pause("others write all the time")

    @primitive
    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        exchange = self._begin()
        while True:
            asked = now()
            number, last = self._numbers.next(exchange)
            changes = {"value": {"S": value}, "version": as_number(number)}
            changes |= self._lives.ends(ttl)
            lives = f"({_IS_DURABLE} OR {_LIVES})"
            write = {"Update": self._change(record, changes, lives)}
            if self._numbers.commit(exchange, number, last, record.key, write):
                end = None if ttl is None else asked + ttl
                self._lives.rewritten(record, number, end)
                return Record(record.key, value, record.created, number)
            found = self._same(exchange, record)
            if found.version != record.version:
                if found.value != value:
                    raise Conflict(found)
                return found  # an earlier try of this very call came through
            exchange.pause("others write all the time")

    @primitive
    def keep_alive(self, record: Record, ttl: float) -> Record:
        exchange = self._begin()
        if not self._clock.known:
            self._numbers.next(exchange)  # for the time that its answer tells
        asked = now()
        try:
            ends = self._lives.ends(ttl)
            exchange("update_item", **self._change(record, ends, _LIVES))
        except Unmet:
            found = self._same(exchange, record)
            if found.version != record.version:
                raise Conflict(found) from None
            raise RecordGone(record.key) from None
        self._lives.written(record.created, record.version, asked + ttl)
        return record

    @primitive
    def delete(self, record: Record) -> None:
        exchange = self._begin()
        condition = expressions(_UNCHANGED, identity(record))
        try:
            exchange("delete_item", **self._items.at(record.key), **condition)
        except Unmet:
            found = self._get(exchange, record.key)
            if found is not None and found.created == record.created:
                raise Conflict(found) from None

    @primitive
    def list(self, prefix: str) -> Snapshot:
        exchange = self._begin()
        self._numbers.settle(exchange)
        found = (self._alive(exchange, item) for item in self._read(exchange, prefix))
        records = [record for record in found if record is not None]
        if not records:  # which is only an answer where somebody could be there
            self._transactions.check(exchange)
        return Snapshot(tuple(sorted(records, key=lambda record: record.created)))

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        stop = self._bounds.stop
        deadline, pause = now() + timeout, interval(prefix, since, timeout)
        before = {r.created: r.version for r in since.records if matches(prefix, r.key)}
        while (left := deadline - now()) > 0:
            stop.wait(min(left, pause * random.uniform(0.75, 1.25)))
            stop.check()
            if (left := deadline - now()) <= 0:
                return  # who called looks next
            try:
                with self._bounds.within_one_call(left):
                    records = self.list(prefix).records
            except StoreUnavailable:
                if now() >= deadline:
                    return
                raise
            found = {r.created: r.version for r in records}
            if found != before:
                if not gone or not before.keys() <= found.keys():
                    return
                pause = FAST  # what is ahead has got on: it may go any moment

    @primitive
    def time_left(self, record: Record) -> float:
        exchange = self._begin()
        item = self._item(exchange, record.key)
        found = item and self._alive(exchange, item)
        if not item or not found or found.created != record.created:
            return 0.0
        return self._lives.seconds_left(item, found)

    @primitive
    def local_address(self) -> str:
        failover = Failover([self._aws.endpoint(self._bounds.time_left())])
        return failover.local_address(self._bounds.time_left(), self._bounds)

    def close(self) -> None:
        self._aws.close()

    def _begin(self) -> Exchange:
        return Exchange(self._aws, self._bounds)

    def _alive(self, exchange: Exchange, item: Item) -> Record | None:
        """Return the item's record; if it is dead, see to it that it stays so."""
        if not self._lives.is_over(item):
            return self._items.record(item)
        key = self._items.record(item).key
        try:
            condition = expressions(_DEAD, self._lives.moment())
            exchange("delete_item", **self._items.at(key), **condition)
        except Unmet:  # renewed, made anew or deleted meanwhile
            renewed = self._item(exchange, key)
            return self._items.record(renewed) if renewed else None
        return None

    def _item(self, exchange: Exchange, key: str) -> Item | None:
        found = exchange("get_item", ConsistentRead=True, **self._items.at(key))
        item: Item | None = found.get("Item")
        if item:
            self._items.check_record(item)
        return item

    def _get(self, exchange: Exchange, key: str) -> Record | None:
        item = self._item(exchange, key)
        return self._alive(exchange, item) if item else None

    def _same(self, exchange: Exchange, record: Record) -> Record:
        found = self._get(exchange, record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _change(self, record: Record, changes: Item, lives: str) -> dict[str, Any]:
        values = identity(record) | self._lives.moment()
        condition = setting(changes, f"{_UNCHANGED} AND {lives}", values)
        return self._items.at(record.key) | condition

    def _read(self, exchange: Exchange, prefix: str) -> Iterator[Item]:
        """Give what is under a prefix: all that is there from before to after."""
        if not is_everything_below(prefix):
            if item := self._item(exchange, prefix):
                yield item
            return
        which = self._items.below(prefix)
        while True:
            page = exchange("query" if prefix else "scan", **which)
            if "Items" not in page:
                raise self._aws.stranger()
            yield from filter(self._items.is_ours, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            which["ExclusiveStartKey"] = page["LastEvaluatedKey"]

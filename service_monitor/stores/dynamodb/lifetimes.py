"""How long records live in DynamoDB, by the store's time and by our own clock.

A record carries two ends: until the first it surely lives, after the second it is
surely dead, by the bounds that its writer knew of the store's time. A durable record
carries none.
"""

from __future__ import annotations

import math

from service_monitor.records import Record
from service_monitor.stores.dynamodb.clock import StoreClock
from service_monitor.stores.dynamodb.expressions import Item, as_number
from service_monitor.stores.dynamodb.items import TTL, is_durable
from service_monitor.timing import now

_LITTER = 86400
"""Seconds from a record's end until DynamoDB may clean it up."""


class Lifetimes:
    """The ends of records; of those that we wrote our own clock knows them better."""

    def __init__(self, clock: StoreClock) -> None:
        self._clock = clock
        self._ours: dict[int, tuple[int, float]] = {}  # by created: version, its end

    def ends(self, ttl: float | None) -> Item:
        """Return the attributes of what is to live `ttl` seconds from now.

        With None there are none: a new record is durable, an old one keeps its ends.
        """
        if ttl is None:
            return {}
        latest = self._clock.latest() + ttl
        return {
            "alive_until": as_number(self._clock.earliest() + ttl),
            "dead_after": as_number(latest),
            TTL: as_number(math.ceil(latest) + _LITTER),
        }

    def moment(self) -> Item:
        """Return the store's time now, at the least, for a condition."""
        return {"now": as_number(self._clock.earliest())}

    def is_over(self, item: Item) -> bool:
        """Tell whether an item's record is surely dead."""
        if is_durable(item):
            return False
        return float(item["dead_after"]["N"]) <= self._clock.earliest()

    def written(self, created: int, version: int, end: float) -> None:
        """Note the end (seconds of `timing.now`) of a record that we wrote."""
        self._ours[created] = version, end

    def rewritten(self, record: Record, version: int, end: float | None) -> None:
        """Note a record's new version, and its new end; with None that stays."""
        known, old = self._ours.get(record.created, (0, 0.0))
        if end is not None:
            self.written(record.created, version, end)
        elif known == record.version:
            self.written(record.created, version, old)

    def seconds_left(self, item: Item, record: Record) -> float:
        """Return the seconds that an item's record surely has left, 0 at the least."""
        if is_durable(item):
            return math.inf
        left = float(item["alive_until"]["N"]) - self._clock.latest()
        version, end = self._ours.get(record.created, (0, 0.0))
        if version == record.version:
            left = max(left, end - now())
        return max(0.0, left)

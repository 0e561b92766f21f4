"""Time on DynamoDB: wrong wall clocks, and records that are dead but there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration.dynamodb.clients import opened, plain
from service_monitor.errors import (
    KeyExists,
    RecordGone,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.place import parse_dynamodb
from service_monitor.stores.dynamodb.store import DynamoStore


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_an_hour_off_changes_nothing(
    url: str, label: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with a wrong clock could not start, or would overtake the others."""
    right, ttl = opened(url), 8  # it takes seconds to open one on a busy machine
    first = right.create(f"{label}/a", "right", ttl)
    off = timedelta(hours=hours)
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda: datetime.now(UTC) + off
    )
    wrong = opened(url)
    with pytest.raises(KeyExists):
        wrong.create(f"{label}/a", "wrong", ttl)
    assert 0 < wrong.time_left(first) <= ttl
    second = wrong.create(f"{label}/b", "wrong", ttl)
    assert 0 < right.time_left(second) <= ttl
    assert len(right.list(f"{label}/").records) == 2
    wrong.keep_alive(second, 60)
    time.sleep(ttl + 2)
    assert [r.key for r in right.list(f"{label}/").records] == [f"{label}/b"]
    assert wrong.create(f"{label}/a", "wrong", ttl).created > second.created


def test_what_is_out_of_time_never_blocks(url: str, label: str) -> None:
    """DynamoDB deletes some days later: until then nobody would start."""
    dead, living = opened(url), opened(url)
    old = dead.create(f"{label}/a", "old", 0.2)
    time.sleep(3)
    place = parse_dynamodb(url)
    where = {"label": f"{place.prefix}/{label}".lstrip("/"), "key": "a"}
    key = {name: {"S": text} for name, text in where.items()}
    there = plain(place).get_item(TableName=place.table, Key=key, ConsistentRead=True)
    assert "Item" in there  # still
    assert living.create(f"{label}/a", "new", 30).created > old.created
    assert [r.value for r in living.list(f"{label}/").records] == ["new"]


def test_whoever_was_found_dead_stays_dead(
    url: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter that wakes up late would take the lease beside its successor."""
    paused, other = DynamoStore(parse_dynamodb(url), Bounds()), opened(url)
    record = paused.create(f"{label}/a", "waiting", 0.5)
    time.sleep(3)
    assert other.list(f"{label}/").records == ()
    # As far as it can tell, it might still be alive.
    monkeypatch.setattr(paused._clock, "earliest", lambda: 0.0)
    with pytest.raises(RecordGone):
        paused.update(record, "held", 30)
    with pytest.raises(RecordGone):
        paused.keep_alive(record, 30)


def test_whoever_is_renewed_in_time_is_not_found_dead(
    url: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that crosses a keepalive would take a living waiter's place away."""
    owner, other = opened(url), DynamoStore(parse_dynamodb(url), Bounds())
    record = owner.create(f"{label}/a", "waiting", 30)
    read = other._read

    def slowly(*args: Any) -> Iterator[Any]:
        for item in read(*args):
            item["dead_after"] = {"N": "1"}  # as it was read, before the keepalive
            yield item

    monkeypatch.setattr(other, "_read", slowly)
    assert other.list(f"{label}/").records == (record,)

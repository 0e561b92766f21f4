"""The contract of the stores on DynamoDB, here moto's server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from integration.dynamodb.clients import opened
from integration.support.durable_contract import *  # noqa: F403
from integration.support.dynamodb import (
    url_of,
)
from integration.support.store_contract import *  # noqa: F403
from integration.support.store_contract import MakeStore
from service_monitor.errors import (
    StoreRefused,
)
from service_monitor.stores.base import Store
from service_monitor.stores.dynamodb.place import parse_dynamodb


def test_many_that_write_at_once_all_get_their_number(
    make_store: MakeStore, label: str
) -> None:
    """Of a fleet that boots after a power cut some would not even queue."""
    stores = [make_store() for _ in range(10)]

    def create(number: int) -> int:
        return stores[number].create(f"{label}/{number}", str(number), 60).created

    with ThreadPoolExecutor(10) as pool:
        numbers = list(pool.map(create, range(10)))
    assert len(set(numbers)) == 10
    listed = stores[0].list(f"{label}/").records
    assert [record.created for record in listed] == sorted(numbers)


def test_a_record_that_is_too_long_is_told(
    url: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever publishes half a megabyte would be sent looking for an outage."""
    with pytest.raises(StoreRefused, match=r"(?i)\bsize\b"):
        opened(url).create(f"{label}/a", "x" * 500_000, 30)


def test_prefixes_know_nothing_of_each_other(url: str, label: str) -> None:
    """Two teams with one table would wait for each other's nodes."""
    place = parse_dynamodb(url)

    def within(prefix: str) -> Store:
        return opened(url_of(replace(place, prefix=f"{place.prefix}{prefix}")))

    stores = [within(prefix) for prefix in ("/one", "/two/x", "", "/one/x")]
    for store in stores:
        assert store.create(f"{label}/a", "1", 30).created == 1
    for store in stores:
        assert [r.key for r in store.list("").records] == [f"{label}/a"]

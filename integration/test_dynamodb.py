"""The contract on DynamoDB, here moto's server, and what only this store has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from integration.dynamodb import ELSEWHERE, DynamoDB, start_dynamodb
from service_monitor.calls import Stop
from service_monitor.stores import Store, open_store
from service_monitor.stores.dynamodb_table import init_table
from tests.store_contract import *  # noqa: F403
from tests.store_contract import MakeStore


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoDB]:
    with start_dynamodb() as server:
        yield server


@pytest.fixture
def url(server: DynamoDB) -> str:
    """Give a table's URL: of moto, or the one that the environment names."""
    elsewhere = os.environ.get(ELSEWHERE)
    if elsewhere:
        init_table(elsewhere, Stop())
    return elsewhere or server.make_table()


@pytest.fixture
def make_store(url: str) -> Iterator[MakeStore]:
    opened: list[Store] = []

    def make(stop: Stop | None = None) -> Store:
        opened.append(open_store(url, stop or Stop(), {}))
        return opened[-1]

    yield make
    for store in opened:
        store.close()

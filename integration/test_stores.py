"""The contract on real etcds, v3 and v2, and on what only they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.etcd import Etcd
from service_monitor.calls import Stop
from service_monitor.stores import Store, open_store
from tests.store_contract import *  # noqa: F403
from tests.store_contract import MakeStore


@pytest.fixture(params=["etcd3", "etcd2"])
def url(request: pytest.FixtureRequest, etcd: Etcd) -> str:
    return etcd.url if request.param == "etcd3" else etcd.url_v2


@pytest.fixture
def make_store(url: str) -> Iterator[MakeStore]:
    opened: list[Store] = []

    def make(stop: Stop | None = None) -> Store:
        opened.append(open_store(url, stop or Stop(), {}))
        return opened[-1]

    yield make
    for store in opened:
        store.close()

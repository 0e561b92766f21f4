"""The contract on real etcds, v3 and v2, and on what only they have."""

from __future__ import annotations

import pytest

from integration.support.durable_contract import *  # noqa: F403
from integration.support.etcd import Etcd
from integration.support.store_contract import *  # noqa: F403


@pytest.fixture(params=["etcd3", "etcd2"])
def url(request: pytest.FixtureRequest, etcd: Etcd) -> str:
    return etcd.url if request.param == "etcd3" else etcd.url_v2

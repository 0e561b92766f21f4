"""Durable records when the store itself ends and comes back."""

from __future__ import annotations

from contextlib import closing

import pytest

from integration.support.contract_steps import gone_within
from integration.support.etcd import Etcd
from integration.support.stores import open_url
from service_monitor.net.calls import Bounds

pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.mark.parametrize("api", ["v3", "v2"])
def test_they_outlive_the_kill_of_etcd(fresh_etcd: Etcd, label: str, api: str) -> None:
    """After a power cut no node would know whom to look for."""
    url = fresh_etcd.url if api == "v3" else fresh_etcd.url_v2
    with closing(open_url(url, Bounds(), {})) as store:
        first = store.create(f"{label}/members/a", "1", None)
        first = store.update(first, "2", None)
        store.create(f"{label}/members/b", "1", None)
        store.create(f"{label}/hosts/a", "1", 2)
        fresh_etcd.restart(kill=True)
        assert gone_within(store, f"{label}/hosts/a", 30)
        found = store.list(f"{label}/members/").records
        assert [(each.key, each.value) for each in found] == [
            (f"{label}/members/a", "2"),
            (f"{label}/members/b", "1"),
        ]
        assert store.update(found[0], "3", None).version > found[1].version

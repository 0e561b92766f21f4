"""Clusters of real processes that start at once: what users take the lease for.

The order is judged by etcd's own history of the records, not by what the CLI says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.simulation.verdicts import (
    HANG,
    MakeCluster,
    assert_each_saw_the_earlier,
    assert_one_cluster,
    assert_orderly,
    history,
    most_at_once,
)
from integration.support.etcd import Etcd

pytestmark = pytest.mark.timeout(360)


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("count", [2, 5, 20])
def test_nodes_started_at_once_form_one_cluster(
    make_cluster: MakeCluster, etcd: Etcd, label: str, count: int
) -> None:
    """Else the one thing that this software is for does not work."""
    cluster = make_cluster(count)
    cluster.start()
    cluster.wait_up(HANG)
    cluster.wait_for("the last lease's release", lambda: not cluster.leases(), HANG)

    assert_one_cluster(cluster)
    granted = assert_orderly(history(etcd, label))
    assert granted == cluster.order("granted") == cluster.order("started")
    assert len(granted) == count
    assert most_at_once(cluster.events()) == 1
    assert_each_saw_the_earlier(cluster)
    tokens = [int(event.detail) for event in cluster.events("granted")]
    assert tokens == sorted(set(tokens))
    assert sorted(cluster.hosts()) == sorted(node.host for node in cluster.nodes)


def test_one_cluster_on_sqlite_too(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Else one machine without an etcd would not get what the README says it gets."""
    cluster = make_cluster(3, store=f"sqlite:///{tmp_path}/store.db")
    cluster.start()
    cluster.wait_up(HANG)
    assert_one_cluster(cluster)
    assert most_at_once(cluster.events()) == 1
    assert_each_saw_the_earlier(cluster)


def test_without_the_lease_they_split(make_cluster: MakeCluster) -> None:
    """Else the tests above would pass whatever the lease does."""
    cluster = make_cluster(5, lease=False, boot=(1.0, 1.5))
    cluster.start()
    cluster.wait_up(HANG)
    assert len(cluster.formed()) > 1
    assert most_at_once(cluster.events()) > 1


@pytest.mark.promise(1)
def test_two_slots_let_two_start_at_a_time(
    make_cluster: MakeCluster, etcd: Etcd, label: str
) -> None:
    """Else `--slots` would let too many nodes start at once, or slow them down."""
    cluster = make_cluster(6, slots=2, boot=(1.0, 1.5))
    cluster.start()
    cluster.wait_up(HANG)
    cluster.wait_for("the last lease's release", lambda: not cluster.leases(), HANG)
    assert len(assert_orderly(history(etcd, label), slots=2)) == 6
    assert most_at_once(cluster.events()) == 2

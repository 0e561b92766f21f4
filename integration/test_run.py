"""`run` in the simulated cluster: real stores, real processes, real signals."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.simulation.cluster import Cluster
from integration.simulation.verdicts import (
    HANG,
    SLACK,
    WATCH,
    MakeCluster,
    assert_each_saw_the_earlier,
    assert_one_cluster,
    queue_of,
)
from integration.support.etcd import Etcd
from integration.support.members import ephemeral
from service_monitor.recipes.lease import HOLDER_TTL

pytestmark = pytest.mark.timeout(360)


@pytest.fixture(params=["etcd", "etcd2", "sqlite"])
def make_cluster(
    request: pytest.FixtureRequest, etcd: Etcd, label: str, tmp_path: Path
) -> Iterator[MakeCluster]:
    """Give a function that makes clusters on each kind of store."""
    sqlite = f"sqlite://{tmp_path}/store.db"
    stores = {"etcd": etcd.url, "etcd2": etcd.url_v2, "sqlite": sqlite}
    with ExitStack() as stack:

        def make(count: int, boot: float, **settings: Any) -> Cluster:
            cluster = Cluster(
                count,
                store=stores[request.param],
                label=label,
                directory=tmp_path,
                by_run=True,
                boot=(boot, boot),
                watch_options=WATCH,
                **settings,
            )
            return stack.enter_context(cluster)

        yield make


@pytest.mark.promise(1, 2)
def test_nodes_started_at_once_form_one_cluster(make_cluster: MakeCluster) -> None:
    """The one line that an operator puts before the service would not work."""
    cluster = make_cluster(4, boot=0.6)
    cluster.start()
    cluster.wait_up(HANG)
    cluster.wait_for("the last lease's release", lambda: not cluster.leases(), HANG)
    assert_one_cluster(cluster)
    tokens = [int(event.detail) for event in cluster.events("granted")]
    assert tokens == sorted(set(tokens))
    assert_each_saw_the_earlier(cluster)
    for node in cluster.nodes:
        node.send("service", signal.SIGTERM)
    cluster.wait_for("nobody up", lambda: not cluster.hosts(), HANG)
    assert ephemeral(cluster.status()) == {"services": [], "leases": []}


@pytest.mark.promise(3)
@pytest.mark.parametrize("make_cluster", ["etcd2"], indirect=True)
def test_a_slow_boot_outlives_the_keepalive(make_cluster: MakeCluster) -> None:
    """The next node would start beside one that takes longer than 30 s."""
    cluster = make_cluster(2, boot=HOLDER_TTL + 3)
    cluster.start()
    first, _ = queue_of(cluster, 2)
    cluster.wait_up(HANG, [first])
    (up,) = first.events("healthy")
    cluster.wait_for("the next", lambda: len(cluster.order("granted")) == 2, HANG)
    granted = cluster.events("granted")[1]
    assert granted.at > up.at
    assert granted.at - up.at < SLACK


@pytest.mark.promise(3)
@pytest.mark.parametrize("make_cluster", ["etcd"], indirect=True)
def test_a_node_that_dies_while_it_boots(make_cluster: MakeCluster) -> None:
    """One dead machine would hold up all others for the lease timeout."""
    cluster = make_cluster(2, boot=60, acquire_options=("--lease-timeout", "10m"))
    cluster.start()
    dead, _ = queue_of(cluster, 2)
    cluster.wait_for("its start", lambda: dead.name in cluster.order("started"), HANG)
    began = time.monotonic()
    (service,) = psutil.Process(dead.processes["service"].pid).children()
    dead.send("service", signal.SIGKILL)
    assert psutil.wait_procs([service], HANG)[1] == []  # the machine died, not a part
    cluster.wait_for("the next", lambda: len(cluster.order("granted")) == 2, HANG)
    assert cluster.events("granted")[1].at - began < HOLDER_TTL + SLACK

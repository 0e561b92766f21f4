"""Clusters of real processes, of which some die, stop, or lose their store."""

from __future__ import annotations

import signal
import time

import pytest

from integration.simulation.verdicts import (
    HANG,
    SLACK,
    MakeCluster,
    assert_each_saw_the_earlier,
    assert_one_cluster,
    assert_orderly,
    history,
    most_at_once,
    queue_of,
    wait_started,
)
from integration.support.etcd import Etcd
from integration.support.members import ephemeral
from service_monitor.recipes.timings import TIMINGS

pytestmark = pytest.mark.timeout(360)


@pytest.mark.promise(3)
def test_killed_waiter_loses_its_place(make_cluster: MakeCluster) -> None:
    """Else one node that crashes in the queue would block all behind it for ever."""
    cluster = make_cluster(3, boot=(2.0, 2.0))
    cluster.start()
    holder, killed, last = queue_of(cluster, 3)
    killed.end()
    died = time.monotonic()
    cluster.wait_up(HANG, [holder, last])
    (granted,) = last.events("granted")
    assert granted.at - died < TIMINGS.waiter_ttl + SLACK
    assert_one_cluster(cluster, sorted([holder, last], key=cluster.nodes.index))
    assert last.seeds == [holder.host]


@pytest.mark.promise(3)
def test_killed_holder_passes_its_turn_on(make_cluster: MakeCluster) -> None:
    """Else a node that crashes while it boots would block all others for ever."""
    options = ("--lease-timeout", "6s")
    cluster = make_cluster(3, boot=(1.5, 1.5), acquire_options=options)
    cluster.start()
    killed, *others = queue_of(cluster, 3)
    wait_started(killed)
    killed.end()
    cluster.wait_up(HANG, others)
    assert_one_cluster(cluster, sorted(others, key=cluster.nodes.index))
    (granted,), (next_granted,) = killed.events("granted"), others[0].events("granted")
    assert 5 < next_granted.at - granted.at < 6 + SLACK, "not when the lease ended"
    assert killed.host not in cluster.hosts()


@pytest.mark.promise(6)
def test_killed_watch_neither_blocks_nor_vouches(make_cluster: MakeCluster) -> None:
    """Else nodes would join a host nobody looks after, or wait for it for ever."""
    options = ("--lease-timeout", "6s")
    cluster = make_cluster(3, boot=(1.5, 1.5), acquire_options=options)
    cluster.start()
    first, second, third = queue_of(cluster, 3)
    cluster.wait_up(HANG, [first])
    wait_started(second)
    second.send("watch", signal.SIGKILL)
    cluster.wait_up(HANG)
    assert third.seeds == [first.host]
    assert_one_cluster(cluster)
    (granted,), (next_granted,) = second.events("granted"), third.events("granted")
    assert 5 < next_granted.at - granted.at < 6 + SLACK, "not when the lease ended"

    first.send("watch", signal.SIGKILL)
    cluster.wait_for(
        "the end of its record", lambda: cluster.hosts() == [third.host], 3 + SLACK
    )
    assert first.running("service")


@pytest.mark.promise(9)
def test_sigterm_in_the_queue_leaves_no_ticket(make_cluster: MakeCluster) -> None:
    """Else stopping a unit that waits would hang, or leave a gap in the queue."""
    cluster = make_cluster(3, boot=(3.0, 3.0))
    cluster.start()
    holder, stopped, last = queue_of(cluster, 3)
    stopped.send("acquire-lease", signal.SIGTERM)
    stopped.processes["acquire-lease"].wait(HANG)
    assert [lease["service_id"] for lease in cluster.leases()] == [
        holder.name,
        last.name,
    ]
    cluster.wait_up(HANG, [holder, last])
    assert_one_cluster(cluster, sorted([holder, last], key=cluster.nodes.index))
    assert not stopped.events("granted")


def test_dead_service_leaves_the_hosts(make_cluster: MakeCluster) -> None:
    """Else new nodes would be told to join one that is dead."""
    cluster = make_cluster(2)
    cluster.start()
    cluster.wait_up(HANG)
    dead, alive = cluster.nodes
    both = sorted([dead.host, alive.host])
    cluster.wait_for("both up", lambda: sorted(cluster.hosts()) == both, HANG)
    dead.send("service", signal.SIGKILL)
    # --fall 2 x (--interval 1 s + --timeout 1 s)
    cluster.wait_for("it gone", lambda: cluster.hosts() == [alive.host], 4 + SLACK)
    states = {s["service_id"]: s["state"] for s in cluster.status()["services"]}
    assert states == {dead.name: "down", alive.name: "up"}

    dead.start()
    cluster.wait_for("it back", lambda: sorted(cluster.hosts()) == both, HANG)
    assert_one_cluster(cluster)


def test_stopped_watch_leaves_the_hosts_at_once(make_cluster: MakeCluster) -> None:
    """Else a node that is shut down in order would be told to others until its TTL."""
    cluster = make_cluster(1, watch_options=("--ttl", "1h"))
    cluster.start()
    cluster.wait_for("it up", lambda: cluster.hosts() != [], HANG)
    (node,) = cluster.nodes
    node.send("watch", signal.SIGTERM)
    assert node.processes["watch"].wait(HANG) == 0
    assert ephemeral(cluster.status()) == {"services": [], "leases": []}


@pytest.mark.promise(8)
def test_restart_of_the_store_changes_nothing(
    make_cluster: MakeCluster, fresh_etcd: Etcd, label: str
) -> None:
    """Else maintenance of etcd during a start would split the cluster."""
    cluster = make_cluster(4, store=fresh_etcd.url, boot=(1.5, 1.5))
    cluster.start()
    first, second, *_ = queue_of(cluster, 4)
    cluster.wait_up(HANG, [first])
    wait_started(second)
    fresh_etcd.restart(kill=True)
    cluster.wait_up(HANG)
    cluster.wait_for("the last lease's release", lambda: not cluster.leases(), HANG)
    assert_one_cluster(cluster)
    assert_orderly(history(fresh_etcd, label))
    assert most_at_once(cluster.events()) == 1
    assert_each_saw_the_earlier(cluster)
    assert sorted(cluster.hosts()) == sorted(node.host for node in cluster.nodes)

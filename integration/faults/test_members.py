"""One fault at a time on three etcds: of the members."""

from __future__ import annotations

import threading
import time

import pytest

from integration.faults.etcd_cluster import EtcdCluster
from integration.faults.processes import HANG, Commands, wait_for
from integration.faults.scenes import (
    acquire,
    both,
    created,
    held,
    listed,
    queued,
    release,
    tickets,
)
from integration.support.etcd_log import ChangeLog

# The first may have to wait for the making of an image.
pytestmark = pytest.mark.timeout(120, func_only=True)


def test_compaction_all_the_time(
    cluster: EtcdCluster, run: Commands, log: ChangeLog
) -> None:
    """A waiter would wait on in a history that is gone, and its turn be lost."""
    held(run, "es-1")
    waiters = {name: queued(run, name) for name in ("es-2", "es-3", "es-4")}
    over = threading.Event()

    def compact() -> None:
        while not over.wait(0.2):
            cluster.compact()

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        time.sleep(1)
        before = "es-1"
        for name, waiter in waiters.items():
            time.sleep(0.3)
            assert waiter.code is None, waiter
            release(cluster, run, before)
            assert waiter.wait() == 0, waiter
            before = name
    finally:
        over.set()
        thread.join()
    tokens = [int(waiter.stdout) for waiter in waiters.values()]
    assert tokens == sorted(tokens)


def test_the_leader_dies_during_a_hand_over(
    cluster: EtcdCluster, run: Commands, log: ChangeLog
) -> None:
    """A crash of the store at the wrong moment would lose a turn, or give it twice."""
    held(run, "es-1")
    first, second = queued(run, "es-2"), queued(run, "es-3")
    leader = cluster.leader()
    killer = threading.Timer(0.25, cluster.kill, [leader])
    killer.start()
    release(cluster, run, "es-1")
    assert first.wait() == 0, first
    killer.join()
    assert second.code is None, second
    release(cluster, run, "es-2")
    assert second.wait() == 0, second
    log.wait_revision(cluster.revision(), HANG)
    assert len(created(log, "es-2")) == len(created(log, "es-3")) == 1


@pytest.mark.promise(8)
@both
@pytest.mark.parametrize("dead", [2, 3], ids=["quorum lost", "all restarted"])
def test_an_outage_while_queued_keeps_the_place(
    cluster: EtcdCluster, run: Commands, dead: int
) -> None:
    """Maintenance of the store would shuffle or end every start under way."""
    held(run, "es-1")
    waiters = [queued(run, name) for name in ("es-2", "es-3")]
    for i in range(dead):
        cluster.kill(i)
    for waiter in waiters:
        waiter.wait_said("does not serve us, trying again")
    for i in range(dead):
        cluster.restart(i)
    cluster.wait_healthy()
    assert [*tickets(cluster, run)] == ["es-1", "es-2", "es-3"]
    for before, waiter in zip(("es-1", "es-2"), waiters, strict=True):
        assert waiter.code is None, waiter
        release(cluster, run, before)
        assert waiter.wait() == 0, waiter
        assert "our ticket expired" not in waiter.stderr


@pytest.mark.promise(8)
@both
def test_a_cut_off_member_gives_no_answer_rather_than_an_old_one(
    cluster: EtcdCluster, run: Commands, service: str, api: str
) -> None:
    """A node would see nobody, and form a second cluster."""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1")
    member = cluster.leader()
    cluster.partition(member)
    hosts = run("hosts", store=f"{api}://{cluster.endpoints[member]}")
    assert hosts.wait() == 69, hosts
    assert hosts.stdout == ""
    assert listed(run) == "es-1"  # the others know


def test_a_full_store_is_waited_out(
    cluster: EtcdCluster, run: Commands, label: str, service: str
) -> None:
    """A full store would fail every start, or hide the hosts that are there."""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1")
    cluster.fill()
    try:
        command = acquire(run, "es-2")
        command.wait_said("does not serve us, trying again")
        assert "space exceeded" in command.stderr
        assert listed(run) == "es-1"
        time.sleep(1)
        assert command.code is None, command
        assert tickets(cluster, run) == {}
    finally:
        cluster.drain()
    assert command.wait() == 0, command
    assert tickets(cluster, run) == {"es-2": "held"}

"""One fault at a time on three etcds: of the connections to them."""

from __future__ import annotations

import time

import pytest

from integration.faults.etcd_cluster import EtcdCluster
from integration.faults.processes import HANG, Commands, wait_for
from integration.faults.scenes import (
    CREATE,
    GRANT,
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


@both
def test_a_first_endpoint_that_swallows_everything(
    cluster: EtcdCluster, run: Commands, service: str
) -> None:
    """One vanished member of three would stop every start of every node."""
    cluster.proxies[0].black_hole()
    assert acquire(run, "es-1").wait() == 0
    assert listed(run) == ""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    watch = run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1")
    watch.wait_said("startup lease released")
    watch.term()
    assert watch.wait() == 0
    assert listed(run) == ""


@pytest.mark.parametrize("hang", [False, True], ids=["reset", "silence"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    "request_", [b"/v3/lease/grant", CREATE, GRANT], ids=["ttl", "ticket", "lease"]
)
def test_a_write_whose_reply_is_lost(
    cluster: EtcdCluster,
    run: Commands,
    log: ChangeLog,
    label: str,
    request_: bytes,
    members: int,
    hang: bool,
) -> None:
    """A node would queue behind itself, or start without holding the lease."""
    cluster.proxies[0].lose_replies(match=request_, hang=hang)
    before = cluster.proxies[0].lost
    endpoints = ",".join(cluster.endpoints[:members])
    command = acquire(run, "es-1", store=f"etcd://{endpoints}")
    assert command.wait() == 0, command
    assert cluster.proxies[0].lost == before + 1
    assert tickets(cluster, run) == {"es-1": "held"}
    log.wait_revision(cluster.revision(), HANG)
    assert len(created(log, "es-1")) == 1
    assert int(command.stdout) == log.changes()[-1].mod_revision


@pytest.mark.parametrize(
    ("api", "which"),
    [("etcd", "watch only"), ("etcd", "all"), ("etcd2", "all")],
)
def test_a_connection_that_dies_half_open_during_a_wait(
    cluster: EtcdCluster, run: Commands, which: str
) -> None:
    """The released lease would lie there until the waiter's own timeout."""
    held(run, "es-1")
    if which == "watch only":
        for proxy in cluster.proxies:
            proxy.lose_replies(1000, match=b"/v3/watch", hang=True)
    waiter = queued(run, "es-2")
    time.sleep(0.3)
    for proxy in cluster.proxies if which == "all" else ():
        proxy.silence()
    release(cluster, run, "es-1")
    released = time.monotonic()
    assert waiter.wait() == 0, waiter
    assert waiter.ended is not None
    # "all": the look after 1 s may find a dead one first, for a third of 5 s.
    assert waiter.ended - released < (5 if which == "watch only" else 9)

"""One fault at a time on three etcds: our own commands are frozen or stopped."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.faults.etcd_cluster import EtcdCluster
from integration.faults.processes import HANG, Command, Commands, wait_for
from integration.faults.scenes import (
    CREATE,
    GRANT,
    SLACK,
    acquire,
    created,
    held,
    listed,
    queued,
    release,
    tickets,
)
from integration.support.etcd_log import ChangeLog
from service_monitor.net.calls import STOP_GRACE
from service_monitor.recipes.timings import TIMINGS
from service_monitor.stores.etcd.place import DEFAULT_PREFIX

# The first may have to wait for the making of an image.
pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.mark.promise(1, 2)
def test_a_waiter_that_was_frozen_past_its_ttl_queues_at_the_end(
    cluster: EtcdCluster, run: Commands, log: ChangeLog, label: str
) -> None:
    """A resumed machine would start on a turn that was given to others meanwhile."""
    held(run, "es-1")
    frozen, second = queued(run, "es-2"), queued(run, "es-3")
    frozen.stop()
    stopped = time.monotonic()
    wait_for("the end of es-2's ticket", lambda: "es-2" not in tickets(cluster, run))
    assert time.monotonic() - stopped < TIMINGS.waiter_ttl + SLACK
    time.sleep(max(0.0, stopped + 1.1 * TIMINGS.waiter_ttl - time.monotonic()))
    third = queued(run, "es-4")
    release(cluster, run, "es-1")
    assert second.wait() == 0, second
    frozen.cont()
    frozen.wait_said("our ticket expired")
    frozen.wait_said("waiting, position")
    wait_for("es-2 queued", lambda: "es-2" in tickets(cluster, run))
    assert [*tickets(cluster, run)] == ["es-3", "es-4", "es-2"]
    for before, waiter in (("es-3", third), ("es-4", frozen)):
        assert waiter.code is None, waiter
        release(cluster, run, before)
        assert waiter.wait() == 0, waiter
    log.wait_revision(cluster.revision(), HANG)
    assert len(created(log, "es-2")) == 2
    old = created(log, "es-2")[0]
    states = [
        json.loads(c.value)["state"]
        for c in log.changes()
        if c.type == "PUT" and c.create_revision == old
    ]
    assert states == ["waiting"]


def test_a_frozen_watch_vouches_for_nobody(
    cluster: EtcdCluster, run: Commands, service: str
) -> None:
    """A dead machine's host would be joined, or a resumed one never listed again."""
    ttl = 3
    watch = run(
        *("watch", "--service-id=es-1", "--host=es-1", f"--monitor-url={service}"),
        *("--interval=1s", "--timeout=1s", f"--ttl={ttl}s"),
    )
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1")
    watch.stop()
    wait_for("es-1 not in hosts", lambda: listed(run) == "", ttl + SLACK)
    watch.cont()
    wait_for("es-1 in hosts again", lambda: listed(run) == "es-1")


def stopped_at(command: Command, delay: float) -> float:
    """Stop it so long after its start; return the seconds that its end took."""
    time.sleep(max(0.0, command.started + delay - time.monotonic()))
    begun = time.monotonic()
    command.term()
    assert command.wait() in (143, -15), command  # -15: not yet ours
    return time.monotonic() - begun


@pytest.mark.promise(9)
def test_a_stop_at_any_moment_leaves_nothing(
    cluster: EtcdCluster, run: Commands, label: str
) -> None:
    """A node that was stopped would be waited for: nobody starts for up to 15 s."""
    held(run, "es-0")
    for proxy in cluster.proxies:
        proxy.latency(0.1)  # most moments are then in the middle of a request
    moments = random.Random(3)
    late: set[str] = set()  # a machine too slow leaves no time for the store
    for turn in range(7):
        started = [acquire(run, f"es-{turn}-{n}") for n in range(3)]
        delays = sorted(moments.uniform(0, 1.2) for _ in started)
        with ThreadPoolExecutor(len(started)) as pool:
            took = list(pool.map(stopped_at, started, delays))
        for n, command in enumerate(started):
            if took[n] > STOP_GRACE:
                late.add(f"es-{turn}-{n}")
            else:
                assert "cannot take the ticket back" not in command.stderr
        assert tickets(cluster, run).keys() - late == {"es-0"}
    lapse = TIMINGS.waiter_ttl + SLACK if late else 0
    wait_for("their end", lambda: tickets(cluster, run) == {"es-0": "held"}, lapse)


@pytest.mark.promise(9)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("request_", [CREATE, GRANT], ids=["ticket", "lease"])
def test_a_stop_between_a_write_and_its_reply_leaves_nothing(
    cluster: EtcdCluster, run: Commands, label: str, request_: bytes, members: int
) -> None:
    """What its owner does not know of yet would block the others, for up to 240 s."""
    proxy = cluster.proxies[0]
    proxy.lose_replies(match=request_, hang=True)
    before = proxy.lost
    endpoints = ",".join(cluster.endpoints[:members])
    command = acquire(run, "es-1", store=f"etcd://{endpoints}")
    wait_for("the write", lambda: proxy.lost > before)
    command.term()
    stopped = time.monotonic()
    code = command.wait()
    assert time.monotonic() - stopped < STOP_GRACE + 2
    assert (code, tickets(cluster, run)) == (143, {}), command


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("command", ["acquire-lease", "watch"])
def test_a_stop_on_connections_that_died_leaves_nothing(
    cluster: EtcdCluster, run: Commands, service: str, command: str, members: int
) -> None:
    """After a failover of the network, a node that was stopped would be waited for."""
    store = f"etcd://{','.join(cluster.endpoints[:members])}"
    name = ("--service-id=es-2", "--host=es-2")
    if command == "watch":
        stopped = run("watch", *name, f"--monitor-url={service}", store=store)
        stopped.wait_said("is up")
    else:
        held(run, "es-1")
        stopped = acquire(run, "es-2", store=store)
        stopped.wait_said("waiting, position")
    prefix = f"{DEFAULT_PREFIX}/{run.label.lower()}/"

    def ours() -> list[str]:
        found = [key for key in cluster.records(prefix) if key.endswith("/es-2")]
        return [key for key in found if "/members/" not in key]  # which stays

    wait_for("the record", ours)
    time.sleep(0.3)
    for proxy in cluster.proxies:
        proxy.silence()
    stopped.term()
    begun = time.monotonic()
    code = stopped.wait()
    assert time.monotonic() - begun < STOP_GRACE + 2
    assert (code, ours()) == (0 if command == "watch" else 143, []), stopped

"""Clusters of real processes: what the lease promises, also when parts of it die.

The order is judged by etcd's own history of the records, not by what the CLI says.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from integration.cluster import Cluster, ClusterError, Node, TicketOrder
from integration.support.etcd import Etcd
from integration.timeline import Event, lanes
from service_monitor.recipes.lease import WAITER_TTL

MakeCluster = Callable[..., Cluster]

pytestmark = pytest.mark.timeout(360)

BOOT = (0.3, 0.6)
HANG = 300.0  # seconds; a bound against hangs, never a measure of speed
SLACK = 12.0  # on top of a documented worst case, for a loaded machine
WATCH = ("--interval", "1s", "--ttl", "3s")


@pytest.fixture
def make_cluster(etcd: Etcd, label: str, tmp_path: Path) -> Iterator[MakeCluster]:
    """Give a function that makes clusters, which end with the test."""
    with ExitStack() as stack:

        def make(count: int, **settings: Any) -> Cluster:
            settings = {
                "store": etcd.url,
                "boot": BOOT,
                "watch_options": WATCH,
            } | settings
            cluster = Cluster(count, label=label, directory=tmp_path, **settings)
            return stack.enter_context(cluster)

        yield make


@dataclass(frozen=True)
class Change:
    """One change of a record under a label; `value` is None when it was deleted."""

    kind: str  # "lease" or "hosts"
    name: str
    created: int
    value: dict[str, Any] | None


def history(etcd: Etcd, label: str) -> list[Change]:
    """Let etcd tell every change of the label's records from the beginning."""
    key = base64.b64encode(b"\0").decode()  # from here to the end: everything
    everything = {"key": key, "range_end": key}
    now = etcd.call("POST", "/v3/kv/range", everything).json()["header"]["revision"]
    watch = {"create_request": {**everything, "start_revision": "1"}}
    changes: list[Change] = []
    revision, born = 0, dict[str, int]()
    with requests.post(
        f"{etcd.base_url}/v3/watch", json=watch, stream=True, timeout=10
    ) as answer:
        for line in answer.iter_lines():
            for event in json.loads(line)["result"].get("events", []):
                record = event["kv"]
                revision = int(record["mod_revision"])
                path = base64.b64decode(record["key"]).decode()
                # A deletion does not tell when the record was created.
                deleted = event.get("type") == "DELETE"
                created = born.setdefault(path, int(record.get("create_revision", 0)))
                if deleted:
                    del born[path]
                where, _, name = path.rpartition("/")
                for kind in ("lease", "hosts"):
                    if where.endswith(f"/{label.lower()}/{kind}"):
                        text = base64.b64decode(record.get("value", ""))
                        value = None if deleted else json.loads(text)
                        changes.append(Change(kind, name, created, value))
            if revision >= int(now):
                return changes
    raise AssertionError("etcd ended its history early")


def assert_orderly(changes: Sequence[Change], slots: int = 1) -> list[str]:
    """Check the promises on the records' history; give the nodes in grant order.

    Whoever is granted the lease is among the first `slots` live tickets, which also
    bounds how many hold it; and a node is published as up before its lease goes.
    """
    tickets: dict[str, int] = {}
    held: set[str] = set()
    up: set[str] = set()
    granted = []
    for change in changes:
        name, state = change.name, change.value and change.value["state"]
        if change.kind == "hosts":
            (up.add if state == "up" else up.discard)(name)
        elif state is None:
            assert name in up or name not in held, f"{name} passed on before it was up"
            held.discard(name)
            del tickets[name]
        else:
            assert tickets.setdefault(name, change.created) == change.created, name
            if state == "held":
                ahead = {n for n, made in tickets.items() if made < change.created}
                assert len(ahead) < slots, f"{name} came before {ahead}"
                granted.append(name)
                held.add(name)
                assert len(held) <= slots, f"{held} hold at once"
    return granted


def most_at_once(events: Sequence[Event]) -> int:
    """Count the nodes that were starting at the same time, at the most."""
    steps = []
    for lane in lanes(events, until=max(event.at for event in events)):
        for phase in lane.phases:
            if phase.kind == "starting":
                steps += [(phase.start, 1), (phase.end, -1)]
    return max(itertools.accumulate(step for _, step in sorted(steps)))


def assert_each_saw_the_earlier(cluster: Cluster) -> None:
    """Check what `hosts` printed after each grant: all that were granted before."""
    nodes = {node.name: node for node in cluster.nodes}
    earlier: list[str] = []
    for name in cluster.order("granted"):
        assert sorted(nodes[name].seeds) == sorted(earlier), name
        earlier.append(nodes[name].host)


def assert_one_cluster(cluster: Cluster, nodes: Sequence[Node] | None = None) -> None:
    """Ask the nodes themselves whether they are one cluster, and count alike."""
    names = [node.name for node in (cluster.nodes if nodes is None else nodes)]
    assert list(cluster.formed().values()) == [dict.fromkeys(names, len(names))]


def queue_of(cluster: Cluster, count: int) -> list[Node]:
    """Wait until so many nodes have tickets; give them in the order of the queue."""
    nodes = {node.name: node for node in cluster.nodes}

    def full() -> list[dict[str, Any]] | None:
        leases = cluster.leases()
        ready = len(leases) == count and leases[0]["state"] == "held"
        return leases if ready else None

    leases = cluster.wait_for(f"{count} tickets", full, HANG)
    assert leases
    return [nodes[lease["service_id"]] for lease in leases]


def wait_started(node: Node) -> None:
    """Wait until the node is in the middle of its boot, with its `watch` beside it."""
    node.cluster.wait_for(
        f"boot of {node.name}", lambda: "watch" in node.processes, HANG
    )


# --- what users start it for ---------------------------------------------------------


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


# --- what goes wrong -----------------------------------------------------------------


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
    assert granted.at - died < WAITER_TTL + SLACK
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
    stopped.processes["acquire-lease"].wait(10)
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
    assert node.processes["watch"].wait(10) == 0
    assert cluster.status() == {"services": [], "leases": []}


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


# --- the simulator itself ------------------------------------------------------------


BACKGROUND = ("sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh")
"""Starts it as a shell does with `... &`."""


def simulate(*options: str, by: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*by, sys.executable, "-m", "integration.simulate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb"},
    )


def children_of(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_simulation_shows_both_runs_and_draws_them(etcd: Etcd, tmp_path: Path) -> None:
    """Else the README's one command would not show what it promises."""
    report = tmp_path / "report.svg"
    with simulate("--nodes", "2", "--store", etcd.url, "--report", str(report)) as run:
        told, log = run.communicate(timeout=HANG)
    assert run.returncode == 0, log
    assert "Without the lease: 2 nodes formed 2 clusters" in told
    assert "With the lease: 2 nodes formed 1 cluster" in told
    assert "(the same)" in told
    drawn = "".join(ET.parse(report).getroot().itertext())
    assert "Without the lease" in drawn
    assert "node-2" in drawn


def test_simulation_fails_when_the_lease_does_not_prevent_a_split(etcd: Etcd) -> None:
    """Else the simulation would call anything a success."""
    with simulate("--nodes", "2", "--slots", "2", "--store", etcd.url) as run:
        told, log = run.communicate(timeout=HANG)
    assert run.returncode == 1, log
    assert "FAILED: more than one cluster with the lease on" in told
    assert "use 1 slot until the cluster exists" in told


@pytest.mark.parametrize(
    "options",
    [
        ("--nodes", "0"),
        ("--slots", "none"),
        ("--report", "picture.png"),
        ("--report", "no/such/directory/picture.svg"),
        ("--store", "nonsense://"),
        ("--bogus",),
    ],
)
def test_bad_input_is_one_line(options: tuple[str, ...]) -> None:
    """Else a typing mistake would be answered with a traceback."""
    with simulate(*options) as run:
        told, log = run.communicate(timeout=HANG)
    assert (run.returncode, told) == (2, "")
    assert len(log.splitlines()) == 1


@pytest.mark.parametrize("by", [(), BACKGROUND], ids=["foreground", "background"])
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGQUIT, 131),
        (signal.SIGTERM, 143),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_simulation_leaves_nothing_behind(
    etcd: Etcd, number: signal.Signals, code: int, by: Sequence[str]
) -> None:
    """Else every interrupted simulation would leave services and watches running."""
    with simulate("--nodes", "3", "--store", etcd.url, by=by) as run:
        assert run.stderr
        line = next(line for line in run.stderr if "has the lease" in line)
        children = children_of(run.pid)
        assert len(children) >= 2, line
        run.send_signal(number)
        run.communicate(timeout=HANG)
    assert run.returncode == code
    deadline = time.monotonic() + 10
    while left := list(filter(alive, children)):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def test_failure_shows_the_logs(make_cluster: MakeCluster) -> None:
    """Else a failed run on a build server could not be understood."""
    cluster = make_cluster(1, boot=(60.0, 60.0))
    cluster.start()
    wait_started(cluster.nodes[0])
    with pytest.raises(ClusterError, match="node-1 up: not within") as caught:
        cluster.wait_up(0.1)
    assert "node-1 acquire-lease exited with 0" in str(caught.value)
    assert "node-1 service is running" in str(caught.value)


def test_ticket_order_is_put_together_from_looks_at_the_queue() -> None:
    """Else the verdict would compare the start order with a wrong queue order."""
    tickets = TicketOrder()
    for look in ("b a", "a d c", "", "e"):
        tickets.see(
            {"service_id": name, "position": position}
            for position, name in reversed(list(enumerate(look.split())))
        )
    assert tickets.names == ["b", "a", "d", "c", "e"]


def test_parallel_simulations_do_not_meet(make_cluster: MakeCluster) -> None:
    """Else two builds on one machine could disturb each other."""
    addresses = [node.address for _ in range(3) for node in make_cluster(2).nodes]
    assert len(set(addresses)) == 6

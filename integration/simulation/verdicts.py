"""What a start has to look like: in the order of the queue, into one cluster."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from integration.simulation.cluster import Cluster
from integration.simulation.node import Node
from integration.simulation.timeline import Event, lanes
from integration.support.etcd import Etcd
from integration.support.etcd_log import ChangeLog, b64, connecting
from service_monitor.stores.etcd.endpoints import DEFAULT_PREFIX

MakeCluster = Callable[..., Cluster]

BOOT = (0.3, 0.6)
HANG = 300.0  # seconds; a bound against hangs, never a measure of speed
SLACK = 12.0  # on top of a documented worst case, for a loaded machine
WATCH = ("--interval", "1s", "--ttl", "3s")


@dataclass(frozen=True)
class Change:
    """One change of a record under a label; `value` is None when it was deleted."""

    kind: str  # "lease" or "hosts"
    name: str
    created: int
    value: dict[str, Any] | None


def history(etcd: Etcd, label: str) -> list[Change]:
    """Let etcd tell every change of the label's records from the beginning."""

    def ask(path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = etcd.call("POST", path, body).json()
        return answer

    prefix = f"{DEFAULT_PREFIX}/{label.lower()}/"
    newest = int(ask("/v3/kv/range", {"key": b64("\0")})["header"]["revision"])
    changes = []
    with ChangeLog([connecting(etcd.base_url)], ask, prefix, since=1) as log:
        assert log.wait_revision(newest, HANG) >= newest, "etcd ended its history early"
        for change in log.changes():
            kind, _, name = change.key.removeprefix(prefix).partition("/")
            if kind not in ("lease", "hosts"):
                continue
            value = json.loads(change.value) if change.type == "PUT" else None
            changes.append(Change(kind, name, change.create_revision, value))
    return changes


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

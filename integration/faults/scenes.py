"""What the tests on three etcds are made of: commands, and looks at the queue."""

from __future__ import annotations

import json

import pytest

from integration.faults.etcd_cluster import EtcdCluster
from integration.faults.processes import Command, Commands, wait_for
from integration.support.etcd_log import ChangeLog

SLACK = 8.0
"""Seconds on top of a promised time, for a machine that is busy."""

CREATE, GRANT = b'"create_revision": "0"', b'"mod_revision"'


both = pytest.mark.parametrize("api", ["etcd", "etcd2"])


def acquire(run: Commands, name: str, *options: str, store: str = "") -> Command:
    options = (f"--service-id={name}", f"--host={name}", "--print-token", *options)
    return run("acquire-lease", *options, store=store or None)


def held(run: Commands, name: str) -> Command:
    """Acquire the lease, which must be free."""
    command = acquire(run, name)
    assert command.wait() == 0, command
    return command


def queued(run: Commands, name: str) -> Command:
    """Start a waiter and return once it has seen its place."""
    command = acquire(run, name)
    command.wait_said("waiting, position")
    return command


def beside(cluster: EtcdCluster, run: Commands, name: str, *options: str) -> str:
    """Run a command past the proxies until the store serves it; give its stdout."""
    store = f"{run.store.partition(':')[0]}://{','.join(cluster.direct_endpoints)}"
    tries: list[Command] = []

    def done() -> bool:
        tries.append(run(name, *options, store=store))
        return tries[-1].wait() == 0

    wait_for(f"{name} to work", done)
    return tries[-1].stdout


def release(cluster: EtcdCluster, run: Commands, name: str) -> None:
    beside(cluster, run, "release-lease", f"--service-id={name}")


def tickets(cluster: EtcdCluster, run: Commands) -> dict[str, str]:
    """Return who holds or waits, in the order of the queue, and in which state."""
    found = json.loads(beside(cluster, run, "status", "--format=json"))["leases"]
    found.sort(key=lambda lease: lease["position"])
    return {lease["service_id"]: lease["state"] for lease in found}


def created(log: ChangeLog, name: str) -> list[int]:
    """List the create revisions of all tickets that this service id ever had."""
    puts = [c for c in log.changes() if c.key.endswith(f"/lease/{name}")]
    return [c.revision for c in puts if c.revision == c.create_revision]


def listed(run: Commands, *, store: str = "") -> str:
    command = run("hosts", store=store or None)
    assert command.wait() == 0, command
    return command.stdout.strip()

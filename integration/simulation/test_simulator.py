"""The simulator itself: its pictures, its verdict, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from integration.simulation.cluster import TicketOrder
from integration.simulation.node import ClusterError
from integration.simulation.verdicts import HANG, MakeCluster, wait_started
from integration.support.etcd import Etcd

pytestmark = pytest.mark.timeout(360)


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
    deadline = time.monotonic() + HANG
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

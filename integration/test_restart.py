"""All nodes killed at once, and started again before their records have lapsed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from integration.simulation.cluster import reserve_network
from integration.support.cli import CLI, clean_environment
from integration.support.dynamodb import DynamoDB
from integration.support.etcd import Etcd
from service_monitor.net.calls import Bounds
from service_monitor.records import Registration, Ticket
from service_monitor.stores.base import Store
from service_monitor.stores.opening import open_store

pytestmark = pytest.mark.timeout(360)

HANG = 150.0
"""Seconds; a bound against hangs, never a measure of speed."""
COUNT = 3
STAGGER = 0.7
"""Seconds from start to start: the first one has its turn while others are ghosts."""

SERVE = 'exec "$PYTHON" -m http.server "$PORT" --bind "$HOST" >/dev/null 2>&1'
TOLD = "${SERVICE_MONITOR_FIRST}:${SERVICE_MONITOR_HOSTS}"
BY_RUN = f'echo "$$ {TOLD}" >>"$SEEN"; {SERVE}'
BY_THREE = f"""
"$PYTHON" -m service_monitor acquire-lease --host="$HOST" || exit
hosts=$("$PYTHON" -m service_monitor hosts) || exit
first=0; [ -n "$hosts" ] || first=1
echo "$$ $first:$hosts" >>"$SEEN"
({SERVE}) &
exec "$PYTHON" -m service_monitor watch --monitor-url="$URL" --host="$HOST"
"""


class Node:
    """One machine: a service by `run`, or by the three commands."""

    def __init__(self, host: str, port: int, directory: Path, url: str, label: str):
        self.host, self.name = host, f"node-{host.rpartition('.')[2]}"
        self.seen = directory / f"{self.name}.seen"
        self.log = directory / f"{self.name}.log"
        self.seen.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._url = f"http://{host}:{port}/"
        self._environ = clean_environment() | {
            "SERVICE_MONITOR_STORE": url,
            "SERVICE_MONITOR_LABEL": label,
            "SERVICE_MONITOR_SERVICE_ID": self.name,
            "PYTHON": sys.executable,
            "HOST": host,
            "PORT": str(port),
            "URL": self._url,
            "SEEN": str(self.seen),
        }

    def start(self, *, by_run: bool) -> None:
        run = [*CLI, "run", f"--host={self.host}"]
        run += [f"--monitor-url={self._url}", "--", "sh", "-c", BY_RUN]
        argv = run if by_run else ["sh", "-c", BY_THREE]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, env=self._environ, stdout=log, stderr=log, process_group=0
            )

    def told(self) -> list[tuple[str, list[str]]]:
        """Give what each life was told: FIRST, and whom to join."""
        lines = self.seen.read_text().split()[1::2]
        parts = (line.partition(":") for line in lines)
        return [(first, hosts.split(",") if hosts else []) for first, _, hosts in parts]

    def kill(self) -> None:
        """Pull the plug."""
        groups = [int(pid) for pid in self.seen.read_text().split()[::2]]
        for pid in [self._process.pid, *groups[-1:]] if self._process else []:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self._process:
            self._process.wait(HANG)
        self._process = None


class Bench:
    """Nodes on one store, and a look at it that is no node's."""

    def __init__(self, directory: Path, url: str, label: str) -> None:
        self._reservation, network, port = reserve_network()
        self.label = label
        self.store: Store = open_store(url, Bounds())
        hosts = [f"{network}.{n}" for n in range(1, COUNT + 1)]
        self.nodes = [Node(host, port, directory, url, label) for host in hosts]
        self.liars: set[str] = set()
        self._ended = threading.Event()

    def up(self) -> list[str]:
        records = self.store.list(f"{self.label}/hosts/").records
        found = [Registration.from_json(record.value) for record in records]
        return [each.host for each in found if each and each.up]

    def settled(self, lives: int) -> None:
        """Wait until all nodes are up, and nobody holds or waits."""
        deadline = time.monotonic() + HANG
        while (
            any(len(node.told()) < lives for node in self.nodes)
            or len(self.up()) < COUNT
            or self.store.list(f"{self.label}/lease/").records
        ):
            logs = "\n".join(node.log.read_text()[-1500:] for node in self.nodes)
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)

    def watch_for_liars(self) -> None:
        """Note who is up in the store while it waits for its turn; until the end."""
        while not self._ended.wait(0.05):
            records = self.store.list(f"{self.label}/").records
            up = {
                found.service_id
                for record in records
                if (found := Registration.from_json(record.value)) and found.up
            }
            tickets = (Ticket.from_json(record.value) for record in records)
            waiting = {t.service_id for t in tickets if t and not t.held}
            self.liars |= up & waiting

    def close(self) -> None:
        self._ended.set()
        for node in self.nodes:
            node.kill()
        self.store.close()
        self._reservation.close()


@pytest.fixture(params=["etcd", "etcd2", "sqlite", "dynamodb"])
def bench(
    request: pytest.FixtureRequest, label: str, tmp_path: Path
) -> Iterator[Bench]:
    """Give nodes on each kind of store."""
    url = f"sqlite://{tmp_path}/store.db"
    if request.param.startswith("etcd"):
        etcd: Etcd = request.getfixturevalue("etcd")
        url = etcd.url if request.param == "etcd" else etcd.url_v2
    elif request.param == "dynamodb":
        server: DynamoDB = request.getfixturevalue("dynamodb")
        url = server.make_table()
    with ExitStack() as stack:
        made = Bench(tmp_path, url, label.lower())
        stack.callback(made.close)
        yield made


@pytest.mark.promise(6)
@pytest.mark.parametrize("by_run", [True, False], ids=["run", "three"])
def test_all_killed_and_started_again_form_one_cluster(
    bench: Bench, by_run: bool
) -> None:
    """After a power cut each would be told to join nodes that are dead.

    Nobody would found the cluster, and all wait for one another.
    """
    for node in bench.nodes:
        node.start(by_run=by_run)
    bench.settled(1)
    for node in bench.nodes:
        node.kill()
    assert len(bench.up()) == COUNT  # ghosts
    sampler = threading.Thread(target=bench.watch_for_liars, daemon=True)
    sampler.start()
    for node in bench.nodes:
        node.start(by_run=by_run)
        time.sleep(STAGGER)
    bench.settled(2)
    told = {node.host: node.told()[1] for node in bench.nodes}
    founders = [host for host, (first, _) in told.items() if first == "1"]
    assert len(founders) == 1, told
    up = set[str]()  # in the order of their turns
    for host, (_, hosts) in sorted(told.items(), key=lambda each: len(each[1][1])):
        assert set(hosts) == up, told
        up.add(host)
    assert bench.liars == set()


@pytest.mark.parametrize("bench", ["etcd", "sqlite"], indirect=True)
@pytest.mark.parametrize("by_run", [True, False], ids=["run", "three"])
def test_one_that_was_killed_joins_the_living(bench: Bench, by_run: bool) -> None:
    """A node that crashed would found a second cluster beside the first."""
    for node in bench.nodes:
        node.start(by_run=by_run)
    bench.settled(1)
    crashed, *others = bench.nodes
    crashed.kill()
    crashed.start(by_run=by_run)
    deadline = time.monotonic() + HANG
    while len(crashed.told()) < 2:
        assert time.monotonic() < deadline, crashed.log.read_text()
        time.sleep(0.1)
    assert crashed.told()[1] == ("0", [node.host for node in others])

"""A simulated cluster: real processes of the real CLI around fake services."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from integration import fake_elasticsearch
from integration.simulation.node import GRACE, GUARD, ClusterError, Node
from integration.simulation.timeline import Event
from integration.support.cli import CLI, ending, environment

T = TypeVar("T")
ONE_SHOT = 60.0  # seconds until a command that does not wait counts as hung


class CommandError(ClusterError):
    """A command of the CLI ended with another exit code than 0."""

    def __init__(self, name: str, code: int, stderr: str) -> None:
        super().__init__(f"{name} {ending(code)}\n{stderr}".strip())
        self.code = code
        self.last_line = (stderr.strip() or str(self)).splitlines()[-1]


class Cluster:
    """Several nodes on one store, under one label; closing it ends every process."""

    def __init__(
        self,
        count: int,
        *,
        store: str,
        label: str,
        directory: Path,
        lease: bool = True,
        by_run: bool = False,
        slots: int = 1,
        boot: tuple[float, float] = (2.0, 4.0),
        seed: int = 0,
        acquire_options: Sequence[str] = (),
        watch_options: Sequence[str] = (),
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.store = store
        self.label = label
        self.directory = directory
        self.lease = lease
        self.by_run = by_run and lease
        self.slots = slots
        self.seed = seed
        self.acquire_options = tuple(acquire_options)
        self.watch_options = tuple(watch_options)
        self._on_event = on_event
        self._events: list[Event] = []
        self._closing = False
        self._lock = threading.Lock()
        self._reservation, network, self.port = reserve_network()
        chance = random.Random(seed)
        self.nodes = [
            Node(self, f"node-{n}", f"{network}.{n}", round(chance.uniform(*boot), 2))
            for n in range(1, count + 1)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Switch on all nodes at once."""
        for node in self.nodes:
            node.start()

    def close(self) -> None:
        """End every process: SIGTERM, and SIGKILL for what is left after `GRACE`."""
        self._closing = True
        try:
            for number in (signal.SIGTERM, signal.SIGCONT):  # the stopped see both
                for node in self.nodes:
                    node.end(number)
            deadline = time.monotonic() + GRACE
            for node in self.nodes:
                node.wait(deadline - time.monotonic())
        finally:  # also if we are told again to stop
            for node in self.nodes:
                node.end(signal.SIGKILL)
            for node in self.nodes:
                node.wait(GRACE)
            self._reservation.close()

    def record(self, event: Event) -> None:
        """Note an event, unless it comes from closing the cluster."""
        with self._lock:
            if not self._closing:
                self._events.append(event)
                self._on_event(event)

    def events(self, kind: str | None = None) -> list[Event]:
        """List what happened so far, oldest first."""
        with self._lock:
            found = [e for e in self._events if kind in (None, e.kind)]
        return sorted(found, key=lambda event: event.at)

    def order(self, kind: str) -> list[str]:
        """List the nodes in the order in which an event of this kind happened."""
        return [event.node for event in self.events(kind)]

    def command(self, name: str, *options: str) -> list[str]:
        """Give the command line of a CLI command on this store and label."""
        return [*CLI, name, "--label", self.label, "--store", self.store, *options]

    def run(self, name: str, *options: str) -> str:
        """Run a command of the CLI and give its stdout."""
        argv = self.command(name, *options)
        try:
            done = subprocess.run(
                [*GUARD, *argv],
                capture_output=True,
                text=True,
                timeout=ONE_SHOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{name} gave no answer in {ONE_SHOT:g} s") from error
        if done.returncode:
            raise CommandError(name, done.returncode, done.stderr)
        return done.stdout

    def hosts(self) -> list[str]:
        """Ask `hosts` which hosts are up."""
        return [h for h in self.run("hosts").strip().split(",") if h]

    def status(self) -> dict[str, list[dict[str, Any]]]:
        """Ask `status` for the services and the leases of this label."""
        answer: dict[str, list[dict[str, Any]]]
        answer = json.loads(self.run("status", "--format", "json"))
        return answer

    def leases(self) -> list[dict[str, Any]]:
        """List tickets in the order of the queue: holders first, then who waits."""
        return sorted(self.status()["leases"], key=lambda lease: lease["position"])

    def formed(self) -> dict[str, dict[str, int]]:
        """Ask the nodes themselves: each cluster's nodes, and how many they count."""
        found: dict[str, dict[str, int]] = {}
        for node in self.nodes:
            health = fake_elasticsearch.ask(node.address, "GET", "/_cluster/health")
            if uuid := health.get("cluster_uuid"):
                found.setdefault(uuid, {})[node.name] = health["number_of_nodes"]
        return found

    def wait_for(self, what: str, condition: Callable[[], T], timeout: float) -> T:
        """Wait until the condition gives something true; fail with the logs so far."""
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            if time.monotonic() > deadline:
                message = f"{what}: not within {timeout:g} s"
                raise ClusterError(f"{message}\n{self.recent_logs()}")
            time.sleep(0.05)
        return result

    def wait_up(self, timeout: float, nodes: Iterable[Node] | None = None) -> None:
        """Wait until the services of these nodes, or of all, have come up once."""
        wanted = {node.name for node in (self.nodes if nodes is None else nodes)}

        def all_up() -> bool:
            for node in self.nodes:
                if node.name in wanted and (failure := node.failure()):
                    logs = self.recent_logs([node.name])
                    raise ClusterError(f"{node.name} failed: {failure}\n{logs}")
            return wanted <= set(self.order("healthy"))

        self.wait_for(f"{', '.join(sorted(wanted))} up", all_up, timeout)

    def recent_logs(self, names: Iterable[str] | None = None, count: int = 8) -> str:
        """Give the last lines of each process's log, and how the process ended."""
        wanted = None if names is None else set(names)
        parts = []
        for node in self.nodes:
            for role, process in list(node.processes.items()):
                if wanted is not None and node.name not in wanted:
                    continue
                code = process.poll()
                state = "is running" if code is None else ending(code)
                text = node.log_file(role).read_text(errors="replace")
                tail = "".join(f"\n    {line}" for line in text.splitlines()[-count:])
                parts.append(f"  {node.name} {role} {state}{tail}")
        return "\n".join(parts)


class TicketOrder:
    """Put together the order in which tickets were taken from looks at the queue."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def see(self, leases: Iterable[Mapping[str, Any]]) -> None:
        """Note the queue as it is now; whoever is new in it came after those known."""
        ahead_first = sorted(leases, key=lambda lease: lease["position"])
        names = [str(lease["service_id"]) for lease in ahead_first]
        self.names += [name for name in names if name not in self.names]


def reserve_network() -> tuple[socket.socket, str, int]:
    """Pick 127.a.b and a port; the socket keeps other simulations from taking them."""
    error: OSError | None = None
    for attempt in range(100):
        network = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}"
        port = 9200 + attempt  # somebody may listen on 9200 of every address
        reservation = socket.socket()
        try:
            reservation.bind((f"{network}.254", port))
        except OSError as caught:
            reservation.close()
            error = caught
        else:
            return reservation, network, port
    raise ClusterError(f"no free loopback address (this needs Linux): {error}")

"""One machine of a simulated cluster: its address, and its processes.

A node does what an operator's unit does: `acquire-lease`, then `hosts`, then start the
service with the seed hosts that it printed, and `watch` beside it. It has its own
loopback address and is driven by one thread. Needs Linux, which owns all of 127/8.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from integration import fake_elasticsearch
from integration.simulation.timeline import Event
from integration.support.cli import ending, environment

if TYPE_CHECKING:
    from integration.simulation.cluster import Cluster

GRACE = 5.0  # seconds between SIGTERM and SIGKILL when a cluster is closed

# Children die with the thread that started them, also when we are killed with SIGKILL.
_SETPRIV = shutil.which("setpriv")
GUARD = (_SETPRIV, "--pdeathsig", "KILL", "--") if _SETPRIV else ()

# What `run` starts: it says what it was told, and becomes the service.
SERVICE = (
    'echo "granted $SERVICE_MONITOR_LEASE_TOKEN $SERVICE_MONITOR_HOSTS"; '
    'exec "$@" "$SERVICE_MONITOR_HOSTS"'
)


class ClusterError(Exception):
    """A node failed, or what was waited for did not happen in time."""


class Node:
    """One machine of the cluster: its address, and its processes by their role."""

    def __init__(self, cluster: Cluster, name: str, host: str, boot: float) -> None:
        self.cluster = cluster
        self.name = name
        self.host = host
        self.boot = boot
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.seeds: list[str] = []
        self.thread: threading.Thread | None = None
        self._gone = threading.Event()  # set: starts no more processes
        self._spawning = threading.Lock()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.cluster.port}"

    def start(self) -> None:
        """Switch the machine on; if it runs, pull the plug first."""
        self.end()
        self.wait(GRACE)
        self._gone.clear()
        self.thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self.thread.start()

    def spawn(
        self, role: str, argv: Sequence[str], *, piped: bool = True
    ) -> subprocess.Popen[str]:
        """Start a process of this node with its stderr, or all it says, in a log."""
        with self._spawning, self.log_file(role).open("a") as log:
            if self._gone.is_set():
                raise ClusterError(f"{self.name} is switched off")
            self.processes[role] = subprocess.Popen(
                [*GUARD, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                text=True,
                env=environment(),
                process_group=0,  # Ctrl-C is for the simulator, which stops the rest
            )
            return self.processes[role]

    def send(self, role: str, number: signal.Signals) -> None:
        """Send a signal to one process."""
        self.processes[role].send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process and start none after this."""
        with self._spawning:
            self._gone.set()
            for process in self.processes.values():
                process.send_signal(number)

    def running(self, role: str) -> bool:
        """Tell whether the node has this process now."""
        return role in self.processes and self.processes[role].poll() is None

    def wait(self, timeout: float) -> None:
        """Wait until the node has no processes left, or the time is over."""
        if self.thread:
            self.thread.join(max(0.0, timeout))

    def log_file(self, role: str) -> Path:
        return self.cluster.directory / f"{self.name}.{role}.log"

    def events(self, kind: str) -> list[Event]:
        """List this node's events of one kind, oldest first."""
        return [e for e in self.cluster.events(kind) if e.node == self.name]

    def failure(self) -> str:
        """Say what went wrong, if anything did that was not a signal of ours."""
        if failed := self.events("failed"):
            return failed[-1].detail
        watch = self.processes.get("watch")
        code = watch and watch.poll()
        return f"watch {ending(code)}" if code and code > 0 else ""

    def _live(self) -> None:
        cluster = self.cluster
        try:
            self.record("queued")
            if cluster.by_run:
                self._follow(self.spawn("service", self.run_command()))
                return
            if cluster.lease:
                token = self._output("acquire-lease", self.acquire_command())
                self.record("granted", token)
            hosts = self._output("hosts", cluster.command("hosts"))
            service = self.spawn("service", [*self.service_command(), hosts])
            self._started(hosts)
            self.spawn("watch", self.watch_command(), piped=False)
            self._follow(service)
        except ClusterError as error:
            self.record("failed", str(error))
        finally:
            # Children die with the thread that started them, so it stays for the last.
            for process in list(self.processes.values()):
                process.wait()

    def _output(self, role: str, argv: Sequence[str]) -> str:
        process = self.spawn(role, argv)
        output, _ = process.communicate()
        if process.returncode:
            raise ClusterError(f"{role} {ending(process.returncode)}")
        return output.strip()

    def _follow(self, service: subprocess.Popen[str]) -> None:
        """Turn what the service says into events until it ends."""
        with self.log_file("service").open("a") as log:
            for line in lines(service.stdout):
                match line.split():
                    case ["ready"]:
                        self.record("healthy")
                    case ["granted", token, *hosts]:
                        self.record("granted", token)
                        self._started("".join(hosts))
                    case [("joined" | "elected") as kind, uuid, *_]:
                        self.record(kind, uuid)
                log.write(f"{line}\n")
                log.flush()
        self.record("stopped", f"service {ending(service.wait())}")

    def _started(self, hosts: str) -> None:
        self.seeds = [host for host in hosts.split(",") if host]
        self.record("hosts", hosts)
        self.record("started")

    def record(self, kind: str, detail: str = "") -> None:
        self.cluster.record(Event(time.monotonic(), self.name, kind, detail))

    def acquire_command(self) -> list[str]:
        cluster = self.cluster
        return [
            *cluster.command("acquire-lease", "--service-id", self.name),
            *("--host", self.host, "--slots", str(cluster.slots), "--print-token"),
            *cluster.acquire_options,
        ]

    def service_command(self) -> list[str]:
        """Give the command line of the service; whom to ask has to follow."""
        return [
            *(sys.executable, fake_elasticsearch.__file__, "--name", self.name),
            *("--host", self.host, "--port", str(self.cluster.port)),
            *("--startup-time", str(self.boot), "--seed", str(self.cluster.seed)),
            "--seed-hosts",
        ]

    def run_command(self) -> list[str]:
        cluster = self.cluster
        return [
            *cluster.command("run", "--service-id", self.name, "--host", self.host),
            *("--monitor-url", f"http://{self.address}/"),
            *("--slots", str(cluster.slots), *cluster.acquire_options),
            *(*cluster.watch_options, "--", *GUARD, "sh", "-c", SERVICE, "sh"),
            *self.service_command(),
        ]

    def watch_command(self) -> list[str]:
        return [
            *self.cluster.command("watch", "--service-id", self.name),
            *("--monitor-url", f"http://{self.address}/", "--host", self.host),
            *self.cluster.watch_options,
        ]


def lines(stream: IO[str] | None) -> Iterable[str]:
    """Read lines until the end of the stream."""
    if stream:
        with stream:
            for line in stream:
                yield line.rstrip("\n")

"""Where the members of a cluster run: in containers, or in network namespaces."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from integration import images
from integration.support.engine import LABELS
from integration.support.etcd import (
    STOP_TIMEOUT,
    EtcdError,
    etcd_program,
)
from integration.support.interrupts import uninterrupted
from integration.support.ports import free_port, worker

_NET_CLIENTS, _NET_PEERS = "clients", "peers"


class Hosting(ABC):
    """Where the members run."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.addresses: list[tuple[str, int]] = []

    @abstractmethod
    def prepare(self) -> None:
        """Make the networks, and choose the addresses."""

    @abstractmethod
    def create(self, i: int, command: list[str]) -> None: ...

    @abstractmethod
    def start(self, i: int) -> None: ...

    @abstractmethod
    def kill(self, i: int) -> None:
        """End it by SIGKILL, also while it is paused; nothing if it does not run."""

    @abstractmethod
    def pause(self, i: int) -> None: ...

    @abstractmethod
    def resume(self, i: int) -> None:
        """Let it go on, if it is paused."""

    @abstractmethod
    def partition(self, i: int) -> None: ...

    @abstractmethod
    def rejoin(self, i: int) -> None: ...

    @abstractmethod
    def running(self, i: int) -> bool: ...

    @abstractmethod
    def logs(self, i: int) -> str: ...

    @abstractmethod
    def remove(self) -> None:
        """Remove all there is, however far it got."""

    def listen(self, i: int) -> str:
        return f"{self.addresses[i][0]}:{self.addresses[i][1]}"

    @abstractmethod
    def listen_peer(self, i: int) -> str: ...

    @abstractmethod
    def peer(self, i: int) -> str: ...


class Containers(Hosting):
    """Containers on a network of their own, published on 127.0.0.1.

    The members talk to each other on a second, internal one, so that a partition is
    pulling one plug: it needs no privileges, and packets vanish without a word.
    """

    def prepare(self) -> None:
        images.ensure(images.ETCD_IMAGE)
        import docker

        self._client = docker.from_env()
        self._name = f"service-monitor-{secrets.token_hex(4)}"
        self._networks: dict[str, Any] = {}
        self._members: list[Any] = []
        self.addresses = [("127.0.0.1", port) for port in _free_ports(self.size)]
        for kind in _NET_CLIENTS, _NET_PEERS:
            with uninterrupted():
                self._networks[kind] = self._client.networks.create(
                    f"{self._name}-{kind}",
                    internal=kind == _NET_PEERS,
                    labels=LABELS,
                )

    def create(self, i: int, command: list[str]) -> None:
        from docker.types import Mount

        with uninterrupted():
            container = self._client.containers.create(
                images.ETCD_IMAGE,
                ["/usr/local/bin/etcd", "--data-dir=/data", *command],
                name=f"{self._name}-{i}",
                labels=LABELS,
                network=self._networks[_NET_CLIENTS].name,
                ports={"2379/tcp": self.addresses[i]},
                mounts=[Mount("/data", None, type="volume")],
            )
            self._members.append(container)
        self.rejoin(i)

    def start(self, i: int) -> None:
        self._members[i].start()

    def kill(self, i: int) -> None:
        self.resume(i)
        if self.running(i):
            self._members[i].kill()
            self._members[i].wait(timeout=STOP_TIMEOUT)

    def pause(self, i: int) -> None:
        self._members[i].pause()

    def resume(self, i: int) -> None:
        if self._state(i) == "paused":
            self._members[i].unpause()

    def partition(self, i: int) -> None:
        self._networks[_NET_PEERS].disconnect(self._members[i])

    def rejoin(self, i: int) -> None:
        self._networks[_NET_PEERS].connect(self._members[i], aliases=[f"m{i}"])

    def running(self, i: int) -> bool:
        return self._state(i) in ("running", "paused")

    def logs(self, i: int) -> str:
        return str(self._members[i].logs(), errors="replace")

    def listen(self, i: int) -> str:
        return "0.0.0.0:2379"

    def listen_peer(self, i: int) -> str:
        return "0.0.0.0:2380"

    def peer(self, i: int) -> str:
        return f"m{i}:2380"

    def remove(self) -> None:
        with contextlib.ExitStack() as stack:  # the last one first, and each of them
            if hasattr(self, "_client"):
                stack.callback(self._client.close)
            for network in getattr(self, "_networks", {}).values():
                stack.callback(network.remove)
            for container in getattr(self, "_members", ()):
                stack.callback(container.remove, force=True, v=True)

    def _state(self, i: int) -> str:
        self._members[i].reload()
        return str(self._members[i].status)


class Namespaces(Hosting):
    """Processes, each in a network namespace of its own.

    Each has a link to the host alone, over which clients come, and one to a bridge in a
    further namespace, where no firewall rule of the host's applies.
    """

    def prepare(self) -> None:
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise EtcdError(
                "a cluster without Docker needs root and iproute2, for network "
                "namespaces: start a Docker engine, or run as root"
            )
        self._program = etcd_program()
        self._name = f"sm{secrets.token_hex(3)}"  # a link's name has up to 15 letters
        self._made: list[str] = []
        self._links: list[str] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        self._commands: dict[int, list[str]] = {}
        with uninterrupted():
            self._folder = tempfile.TemporaryDirectory(prefix="service-monitor-etcd-")
        # Of the range for tests between networks (RFC 2544): nobody else's.
        self._net = f"198.18.{worker() % 8 * 32 + random.randrange(32)}"
        self.addresses = [(f"{self._net}.{4 * i + 2}", 2379) for i in range(self.size)]
        switch = self._namespace("s")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for i in range(self.size):
            own = self._namespace(str(i))
            _ip("-n", own, "link", "set", "lo", "up")
            link = f"{self._name}-{i}"
            with uninterrupted():
                veth = ("type", "veth", "peer", "clients", "netns", own)
                _ip("link", "add", link, *veth)
                self._links.append(link)
            _ip("address", "add", f"{self._net}.{4 * i + 1}/30", "dev", link)
            _ip("link", "set", link, "up")
            self._join(own, "clients", f"{self._net}.{4 * i + 2}/30")
            port = f"member{i}"
            veth = ("type", "veth", "peer", "peers", "netns", own)
            _ip("-n", switch, "link", "add", port, *veth)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            self._join(own, "peers", f"192.0.2.{i + 1}/24")

    def create(self, i: int, command: list[str]) -> None:
        self._commands[i] = [
            *("ip", "netns", "exec", self._made[i + 1], self._program),
            *(f"--data-dir={self._folder.name}/{i}", *command),
        ]

    def start(self, i: int) -> None:
        with Path(self._folder.name, f"log{i}").open("ab") as log:
            self._processes[i] = subprocess.Popen(
                self._commands[i],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then stop it in order
            )

    def kill(self, i: int) -> None:
        if process := self._processes.get(i):
            process.kill()
            process.wait()
        self._paused.discard(i)

    def pause(self, i: int) -> None:
        self._processes[i].send_signal(signal.SIGSTOP)
        self._paused.add(i)

    def resume(self, i: int) -> None:
        if i in self._paused:
            self._processes[i].send_signal(signal.SIGCONT)
            self._paused.discard(i)

    def partition(self, i: int) -> None:
        # At the far end: what the member sends vanishes, and it sees no link go down.
        _ip("-n", self._made[0], "link", "set", f"member{i}", "nomaster")

    def rejoin(self, i: int) -> None:
        _ip("-n", self._made[0], "link", "set", f"member{i}", "master", "bridge")

    def running(self, i: int) -> bool:
        return i in self._processes and self._processes[i].poll() is None

    def logs(self, i: int) -> str:
        path = Path(self._folder.name, f"log{i}")
        return path.read_text(errors="replace") if path.exists() else ""

    def listen_peer(self, i: int) -> str:
        return self.peer(i)

    def peer(self, i: int) -> str:
        return f"192.0.2.{i + 1}:2380"

    def remove(self) -> None:
        with contextlib.ExitStack() as stack:
            if hasattr(self, "_folder"):
                stack.callback(self._folder.cleanup)
            for namespace in getattr(self, "_made", ()):
                stack.callback(_ip, "netns", "delete", namespace)
            # A namespace lives on for as long as the kernel sends for a dead process.
            for link in getattr(self, "_links", ()):
                stack.callback(_ip, "link", "delete", link)
            for i in getattr(self, "_processes", ()):
                stack.callback(self.kill, i)

    def _namespace(self, suffix: str) -> str:
        name = f"{self._name}-{suffix}"
        with uninterrupted():
            _ip("netns", "add", name)
            self._made.append(name)
        return name

    def _join(self, namespace: str, link: str, address: str) -> None:
        _ip("-n", namespace, "address", "add", address, "dev", link)
        _ip("-n", namespace, "link", "set", link, "up")


def _ip(*arguments: str) -> None:
    done = subprocess.run(("ip", *arguments), capture_output=True, text=True)
    if done.returncode:
        raise EtcdError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)

"""Three etcds in one cluster, and what can happen to them.

    with EtcdCluster() as cluster:
        cluster.partition(cluster.leader())

In Docker, or where no engine answers as processes in network namespaces (which needs
root). Clients reach every member on an address and port that stay the same, also while
it is cut off from the other members. Nothing of it is left behind, also on Ctrl-C and
SIGTERM.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import requests

from integration import images
from integration.faults.proxy import Proxy
from integration.support.etcd import (
    HEALTH,
    LABELS,
    READY_TIMEOUT,
    STOP_TIMEOUT,
    EtcdError,
    Server,
    call,
    docker_available,
    end_by_exception,
    etcd_program,
    flags,
    free_port,
    uninterrupted,
)

CALL_TIMEOUT = 3.0
QUOTA = 16 * 2**20  # bytes of a member's database; small, so that `fill` is quick
_FILLING = "service_monitor-fill/"  # outside of what clients and change logs read
_NET_CLIENTS, _NET_PEERS = "clients", "peers"


class Change(NamedTuple):
    """One event of the store's own log; `at` is time.monotonic() when we learned of it.

    Of a DELETE the last four are those of what was deleted.
    """

    at: float
    revision: int
    type: Literal["PUT", "DELETE"]
    key: str
    value: str
    create_revision: int
    mod_revision: int
    lease: int


def obstacle() -> str | None:
    """Say what is missing here to run a cluster; None if nothing is."""
    if docker_available() or (os.geteuid() == 0 and shutil.which("ip")):
        return None
    return (
        "a cluster needs a Docker engine, or root and iproute2 for network namespaces"
    )


class EtcdCluster(Server):
    """A running cluster; members are numbered from 0. Enter it with `with`.

    With `proxied` clients get to member i through `proxies[i]`; what the cluster itself
    asks (`leader`, `watch_log` ...) goes past them. Verbs may come from any thread, one
    at a time for each member.
    """

    def __init__(
        self,
        size: int = 3,
        prefer: Literal["docker", "process"] | None = None,
        *,
        proxied: bool = False,
        quota: int = QUOTA,
        extra_args: Sequence[str] = (),
    ) -> None:
        if prefer == "docker" and not docker_available():
            raise EtcdError("no Docker engine answers: start one, or prefer='process'")
        docker = prefer == "docker" or (prefer is None and docker_available())
        self._hosting: _Hosting = _Containers(size) if docker else _Namespaces(size)
        self.size = size
        self.proxied = proxied
        self.proxies: list[Proxy] = []
        # Page cache outlives a killed process, so durability does not need the disk.
        self._args = [
            "--unsafe-no-fsync",
            f"--quota-backend-bytes={quota}",
            *extra_args,
        ]
        self._partitioned: set[int] = set()
        self._logs: list[ChangeLog] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        end_by_exception()
        try:
            self._stack.callback(self._hosting.remove)
            self._hosting.prepare()
            if self.proxied:
                for host, port in self._hosting.addresses:
                    proxy = Proxy(host, port)
                    self.proxies.append(self._stack.enter_context(proxy))
            for i in range(self.size):
                self._hosting.create(i, self._command(i))
                self._hosting.start(i)
            self.wait_healthy(READY_TIMEOUT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            for log in self._logs:
                log.close()
            self._stack.close()

    # where it is

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the members, as "host:port"."""
        if self.proxied:
            return [proxy.endpoint for proxy in self.proxies]
        return self.direct_endpoints

    @property
    def direct_endpoints(self) -> list[str]:
        """Where the members are, past the proxies."""
        return [f"{host}:{port}" for host, port in self._hosting.addresses]

    # what can happen to one member

    def kill(self, i: int) -> None:
        """End a member as kill -9 does; it keeps its data, and stays down."""
        self._hosting.kill(i)

    def restart(self, i: int) -> None:
        """Start a member with its data; kill it first if it runs.

        Does not wait for it to serve: without the others it cannot.
        """
        self._hosting.kill(i)
        with uninterrupted():
            self._hosting.start(i)

    def pause(self, i: int) -> None:
        """Freeze a member: it accepts connections but answers nothing."""
        self._hosting.pause(i)

    def resume(self, i: int) -> None:
        """Let a paused member go on."""
        self._hosting.resume(i)

    def partition(self, i: int) -> None:
        """Cut a member off from the other members; its clients still reach it."""
        if i not in self._partitioned:
            self._hosting.partition(i)
            self._partitioned.add(i)

    def heal(self) -> None:
        """End all partitions and pauses, start whom was killed, mend the proxies."""
        for i in range(self.size):
            if i in self._partitioned:
                self._hosting.rejoin(i)
                self._partitioned.discard(i)
            self._hosting.resume(i)
            if not self._hosting.running(i):
                with uninterrupted():
                    self._hosting.start(i)
        for proxy in self.proxies:
            proxy.heal()

    def logs(self, i: int) -> str:
        """Return everything that a member has logged so far."""
        return self._hosting.logs(i)

    # what can happen to all of them

    def leader(self, timeout: float = 10.0) -> int:
        """Return which member leads, once one does; a deposed one does not count."""
        deadline = time.monotonic() + timeout
        while True:
            leading = []
            for i in range(self.size):
                status = self._status(i)
                if status and status.get("leader") == status["header"]["member_id"]:
                    leading.append((int(status["raftTerm"]), i))
            whole = [pair for pair in leading if pair[1] not in self._partitioned]
            if whole:
                return max(whole)[1]
            if time.monotonic() > deadline:
                raise EtcdError(f"no leader within {timeout:g} s\n{self._tails()}")
            time.sleep(0.05)

    def move_leader(self, to: int | None = None) -> int:
        """Make another member the leader, and return which one it is now."""
        leader = self.leader()
        others = [i for i in range(self.size) if i not in (leader, *self._partitioned)]
        for i in [to] if to is not None else others:
            status = self._status(i)
            if status and i != leader:
                target = {"targetID": status["header"]["member_id"]}
                path = "/v3/maintenance/transfer-leadership"
                self.call(leader, path, target, timeout=10)
                return i
        raise EtcdError("there is nobody to move the leadership to")

    def fill(self) -> None:
        """Fill the database up to its quota: from then on etcd refuses to put."""
        value = _b64(secrets.token_hex(2**18))  # 512 KiB, and a third more in the log
        for number in range(10000):
            with contextlib.suppress(requests.HTTPError):
                self._ask("/v3/kv/put", {"key": _b64(f"{_FILLING}x"), "value": value})
                continue
            if self.alarms():
                return
            if number > 1000:
                break
            time.sleep(0.1)
        raise EtcdError("filling the database raised no alarm")

    def drain(self, upto: int | None = None) -> None:
        """Make room again: compact, defragment every member, disarm the alarm."""
        self._ask("/v3/kv/deleterange", {"key": _b64(f"{_FILLING}x")})
        self.compact(upto)
        for i in range(self.size):
            with contextlib.suppress(requests.RequestException):  # one may be down
                self.call(i, "/v3/maintenance/defragment", timeout=20)
        for alarm in self.alarms():
            self._ask("/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})

    def alarms(self) -> list[dict[str, Any]]:
        """List the alarms that are raised."""
        answer = self._ask("/v3/maintenance/alarm", {"action": "GET"})
        return [a for a in answer.get("alarms", ()) if a.get("alarm")]

    def revision(self) -> int:
        """Return the store's current revision."""
        answer = self._ask("/v3/kv/range", {"key": _b64(_FILLING), "count_only": True})
        return int(answer["header"]["revision"])

    def records(self, prefix: str) -> dict[str, str]:
        """Read what is stored under a key prefix, the oldest first; linearizable."""
        body = {"key": _b64(prefix), "range_end": _b64(_after(prefix))}
        order = {"sort_target": "CREATE", "sort_order": "ASCEND"}
        found = self._ask("/v3/kv/range", body | order).get("kvs", ())
        return {_text(kv["key"]): _text(kv.get("value", "")) for kv in found}

    def compact(self, upto: int | None = None) -> int:
        """Forget the history up to now, and return which revision that is.

        Waits for the change logs first, which must not lose any of it; with `upto`
        keeps what is newer.
        """
        revision = self.revision() if upto is None else upto
        for log in self._logs:
            revision = min(revision, log.wait_revision(revision, CALL_TIMEOUT))
        body = {"revision": str(revision), "physical": True}
        with contextlib.suppress(requests.HTTPError):  # somebody compacted later
            self._ask("/v3/kv/compaction", body)
        return revision

    def healthy(self, i: int | None = None) -> bool:
        """Tell whether a member, or all of them, serve linearizable reads."""
        if i is None:
            return all(map(self.healthy, range(self.size)))
        try:
            return bool(self.call(i, HEALTH, method="GET")["health"] == "true")
        except (requests.RequestException, ValueError):
            return False

    def wait_healthy(
        self, timeout: float = READY_TIMEOUT, members: Sequence[int] | None = None
    ) -> None:
        """Wait until these members, or all, are healthy; fail with their logs' ends."""
        deadline = time.monotonic() + timeout
        for i in range(self.size) if members is None else members:
            while not self.healthy(i):
                if time.monotonic() > deadline:
                    what = f"etcd member {i} is not healthy within {timeout:g} s"
                    raise EtcdError(f"{what}\n{self._tails()}")
                time.sleep(0.05)

    def watch_log(self, prefix: str, since: int | None = None) -> ChangeLog:
        """Record the store's own log of changes under a key prefix.

        From revision `since` on, else from now on. Ends with the cluster, or by `with`.
        """
        if since is None:
            since = self.revision() + 1
        log = ChangeLog(self._hosting.addresses, self._ask, prefix, since)
        self._logs.append(log)
        return log

    # requests

    def call(
        self,
        i: int,
        path: str,
        body: object = None,
        *,
        method: str = "POST",
        timeout: float = CALL_TIMEOUT,
    ) -> dict[str, Any]:
        """Send one request to a member, past its proxy; raise for a status from 400."""
        url = f"http://{self.direct_endpoints[i]}{path}"
        answer: dict[str, Any] = call(method, url, body or {}, timeout=timeout).json()
        return answer

    def _ask(self, path: str, body: object = None) -> dict[str, Any]:
        """Send one request to whichever member answers it."""
        for attempt in range(3 * self.size):
            try:
                return self.call(attempt % self.size, path, body)
            except requests.RequestException as caught:
                error = caught
                # A refusal is an answer, but a server without a leader gives 5xx.
                if caught.response is not None and caught.response.status_code < 500:
                    raise
        raise error

    def _status(self, i: int) -> dict[str, Any] | None:
        try:
            return self.call(i, "/v3/maintenance/status", timeout=1)
        except (requests.RequestException, ValueError):
            return None

    def _tails(self, count: int = 8) -> str:
        return "\n".join(
            f"member {i} {'runs' if self._hosting.running(i) else 'is down'}:\n    "
            + "\n    ".join(self.logs(i).splitlines()[-count:])
            for i in range(self.size)
        )

    def _command(self, i: int) -> list[str]:
        own = self._hosting
        urls = (f"http://{own.listen(i)}", f"http://{self.endpoints[i]}")
        peers = {f"m{k}": own.peer(k) for k in range(self.size)}
        return [*flags(*urls, own.listen_peer(i), peers, f"m{i}"), *self._args]


class ChangeLog:
    """Every change under a prefix, once and in order, whatever happens to members.

    All members tell the same log, so it listens to each and takes who is first; a
    listener that was cut off goes on behind what is known. What a DELETE deleted comes
    from the log itself, since compaction would take it away from etcd's answer.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        ask: Callable[[str, object], dict[str, Any]],
        prefix: str,
        since: int,
    ) -> None:
        self.prefix = prefix
        self._changes: list[Change] = []
        self._revision = since - 1
        self._problem: str | None = None
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._open: dict[int, http.client.HTTPConnection] = {}
        before = {"key": _b64(prefix), "range_end": _b64(_after(prefix))}
        if since > 1:
            before["revision"] = str(since - 1)
            try:
                found = ask("/v3/kv/range", before).get("kvs", ())
            except requests.HTTPError as error:
                said = error.response.text.strip()
                raise EtcdError(f"no log from revision {since} on: {said}") from error
        else:
            found = ()
        self._state = {_text(kv["key"]): kv for kv in found}
        self._threads = [
            threading.Thread(target=self._listen, args=(n, address), daemon=True)
            for n, address in enumerate(addresses)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what was recorded stays. May be called again."""
        self._closed.set()
        with self._news:
            self._news.notify_all()
        for connection in [*self._open.values()]:
            if sock := connection.sock:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(CALL_TIMEOUT)

    @property
    def revision(self) -> int:
        """Return the store's revision up to which the log is complete."""
        return self._revision

    def changes(self) -> list[Change]:
        """List what was recorded so far; raise EtcdError if some of it is lost."""
        with self._news:
            self._check()
            return list(self._changes)

    def __iter__(self) -> Iterator[Change]:
        """Yield each change from the first on, wait for more; ends with `close`."""
        seen = 0
        while True:
            with self._news:
                while len(self._changes) == seen and not self._closed.is_set():
                    self._news.wait()
                self._check()
                new = self._changes[seen:]
            if not new:
                return
            yield from new
            seen += len(new)

    def wait_revision(self, revision: int, timeout: float) -> int:
        """Wait until the log has come that far; return how far it has."""
        with self._news:
            self._news.wait_for(
                lambda: self._revision >= revision or self._closed.is_set(), timeout
            )
            return self._revision if not self._closed.is_set() else revision

    def _check(self) -> None:
        if self._problem:
            raise EtcdError(f"the log of {self.prefix} has a gap: {self._problem}")

    def _listen(self, number: int, address: tuple[str, int]) -> None:
        while not self._closed.is_set():
            connection = http.client.HTTPConnection(*address, timeout=CALL_TIMEOUT)
            self._open[number] = connection
            try:
                with contextlib.suppress(
                    OSError, http.client.HTTPException, ValueError, KeyError
                ):
                    self._follow(connection)
            finally:
                connection.close()
            self._closed.wait(0.1)

    def _follow(self, connection: http.client.HTTPConnection) -> None:
        # All keys: each revision then shows up, so `revision` is exact also when
        # nothing happens under the prefix.
        request = {
            "key": _b64("\0"),
            "range_end": _b64("\0"),
            "start_revision": str(self._revision + 1),
        }
        body = json.dumps({"create_request": request})
        connection.request("POST", "/v3/watch", body)
        response = connection.getresponse()
        while line := response.readline():
            at = time.monotonic()
            result = json.loads(line)["result"]
            if result.get("canceled"):
                with self._news:
                    if int(result.get("compact_revision", 0)) > self._revision + 1:
                        self._problem = line.decode()
                        self._news.notify_all()
                        self._closed.set()
                return
            if events := result.get("events"):
                self._record(at, events)

    def _record(self, at: float, events: list[dict[str, Any]]) -> None:
        with self._news:
            known = self._revision
            for event in events:
                kv = event["kv"]
                if (revision := int(kv["mod_revision"])) <= known:
                    continue
                self._revision = revision
                if (key := _text(kv["key"])).startswith(self.prefix):
                    deleted = event.get("type") == "DELETE"
                    if not deleted:
                        self._state[key] = kv
                    kv = self._state.pop(key) if deleted else kv
                    self._changes.append(
                        Change(
                            at,
                            revision,
                            "DELETE" if deleted else "PUT",
                            key,
                            _text(kv.get("value", "")),
                            int(kv["create_revision"]),
                            int(kv["mod_revision"]),
                            int(kv.get("lease", 0)),
                        )
                    )
            self._news.notify_all()


class _Hosting(ABC):
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


class _Containers(_Hosting):
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


class _Namespaces(_Hosting):
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
        self._net = f"198.18.{random.randrange(256)}"
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


def _after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")

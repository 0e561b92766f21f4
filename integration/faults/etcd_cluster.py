"""Three etcds in one cluster, and what can happen to them.

    with EtcdCluster() as cluster:
        cluster.partition(cluster.leader())

In Docker, or where no engine answers as processes in network namespaces (which needs
root). Clients reach every member on an address and port that stay the same, also while
it is cut off from the other members. Nothing of it is left behind, also on Ctrl-C and
SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import Any, Literal, Self

import requests

from integration.faults.hosting import Containers, Hosting, Namespaces
from integration.faults.proxy import Proxy
from integration.support.engine import docker_available
from integration.support.etcd import (
    HEALTH,
    READY_TIMEOUT,
    EtcdError,
    Server,
    call,
    flags,
)
from integration.support.etcd_log import (
    CALL_TIMEOUT,
    ChangeLog,
    after,
    b64,
    connecting,
    text,
)
from integration.support.interrupts import end_by_exception, uninterrupted

QUOTA = 16 * 2**20  # bytes of a member's database; small, so that `fill` is quick
_FILLING = "service_monitor-fill/"  # outside of what clients and change logs read


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
        self._hosting: Hosting = Containers(size) if docker else Namespaces(size)
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

    def leader(self, timeout: float = 60.0) -> int:
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
                self.call(leader, path, target, timeout=30)
                return i
        raise EtcdError("there is nobody to move the leadership to")

    def fill(self) -> None:
        """Fill the database up to its quota: from then on etcd refuses to put."""
        value = b64(secrets.token_hex(2**18))  # 512 KiB, and a third more in the log
        for number in range(10000):
            with contextlib.suppress(requests.HTTPError):
                self._ask("/v3/kv/put", {"key": b64(f"{_FILLING}x"), "value": value})
                continue
            if self.alarms():
                return
            if number > 1000:
                break
            time.sleep(0.1)
        raise EtcdError("filling the database raised no alarm")

    def drain(self, upto: int | None = None) -> None:
        """Make room again: compact, defragment every member, disarm the alarm."""
        self._ask("/v3/kv/deleterange", {"key": b64(f"{_FILLING}x")})
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
        answer = self._ask("/v3/kv/range", {"key": b64(_FILLING), "count_only": True})
        return int(answer["header"]["revision"])

    def records(self, prefix: str) -> dict[str, str]:
        """Read what is stored under a key prefix, the oldest first; linearizable."""
        body = {"key": b64(prefix), "range_end": b64(after(prefix))}
        order = {"sort_target": "CREATE", "sort_order": "ASCEND"}
        found = self._ask("/v3/kv/range", body | order).get("kvs", ())
        return {text(kv["key"]): text(kv.get("value", "")) for kv in found}

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
        members = [connecting(f"http://{place}") for place in self.direct_endpoints]
        log = ChangeLog(members, self._ask, prefix, since)
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

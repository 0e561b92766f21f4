"""Observe etcd: the change log (v3), a loop of watches by index (v2)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests

from integration.history.observer import CALL, Key, Observer, read, split
from integration.history.recorder import Change
from integration.support.etcd_log import Change as Told
from integration.support.etcd_log import ChangeLog, b64, connecting
from service_monitor.net.http import new_session
from service_monitor.stores.etcd.endpoints import Endpoint, parse_endpoints
from service_monitor.timing import now

CHECK_EVERY = 0.2  # seconds between two quorum reads
STALE = 2.0  # seconds of quiet after which the watch tries the next member


class _EtcdObserver(Observer):
    """What both APIs have in common: several members, any of which may be away."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._endpoints, access = parse_endpoints(url, {})
        self._prefix = f"{access.prefix}/"
        self._access = access

    def _session(self) -> requests.Session:
        session: requests.Session = new_session(
            ca=self._access.ca, cert=self._access.cert
        )
        return session

    def _any(self, ask: Callable[[Endpoint], requests.Response]) -> requests.Response:
        """Ask one member after the other until one answers."""
        problem: Exception | None = None
        for endpoint in self._endpoints:
            try:
                answer = ask(endpoint)
                if answer.status_code in (200, 404):
                    return answer
                problem = ValueError(answer.text)
            except requests.RequestException as error:
                problem = error
        raise problem or ValueError("no endpoint")


class Etcd3Observer(_EtcdObserver):
    """Reads the change log of the v3 API, and asks the quorum how far it goes."""

    _log: ChangeLog | None = None

    @property
    def revision(self) -> int:
        """Return the store's revision up to which everything was read."""
        return self._log.revision if self._log else 0

    def wait_revision(self, revision: int, seconds: float) -> None:
        """Wait until everything was read up to a revision, but no longer than that."""
        if self._log:
            self._log.wait_revision(revision, seconds)

    def _open(self) -> None:
        self._reader = self._session()
        tls = ssl.create_default_context(cafile=self._access.ca)
        if self._access.cert:
            tls.load_cert_chain(*self._access.cert)
        self._members = [connecting(e.url, tls) for e in self._endpoints]
        self._log = self._begun()

    def _begun(self) -> ChangeLog:
        """Begin the log with what is there now."""
        return ChangeLog(self._members, self._ask, self._prefix, take=self._take)

    def _work(self) -> list[Callable[[], None]]:
        return [self._check]

    def _ask(self, path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = self._any(
            lambda e: self._reader.post(f"{e}{path}", json=body, timeout=CALL)
        ).json()
        return answer

    def _check(self) -> None:
        """Compare with the quorum: what we know up to now is then complete."""
        assert self._log
        if self._log.problem:
            self._log.close()
            self._log = self._begun()
        began = now()
        body = {"key": b64("\0"), "count_only": True, "limit": 1}
        revision = int(self._ask("/v3/kv/range", body)["header"]["revision"])
        with self.changed:
            if self._log.revision >= revision:
                self._verified = began
        self._closing.wait(CHECK_EVERY)

    def _take(self, changes: Sequence[Told], seen: bool) -> None:
        with self.changed:
            if self._log and not seen:  # what went before is not known
                self._note(Change(self._verified, now(), "", "gap", "", 0, 0, None))
            for told in changes:
                key = split(told.key.removeprefix(self._prefix))
                if key is None:
                    continue
                gone = told.type == "DELETE"
                value = None if gone else read(told.value)
                bounds = self._verified, told.at
                numbers = told.create_revision, told.revision
                change = Change(*bounds, *key, *numbers, value, None, None, seen)
                self._note(change)
            self.changed.notify_all()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._log:
            self._log.close()


class Etcd2Observer(_EtcdObserver):
    """Follows the index; whether anything is missing is told by comparing listings."""

    def _open(self) -> None:
        self._reader = self._session()
        self._watcher = self._session()
        self._member = 0
        self._index = 0
        self._relist(first=True)

    def _work(self) -> list[Callable[[], None]]:
        return [self._watch, self._check]

    def _list(self) -> tuple[int, list[dict[str, Any]]]:
        query = "?recursive=true&quorum=true"
        answer = self._any(
            lambda e: self._reader.get(
                f"{e}/v2/keys{self._prefix.rstrip('/')}{query}", timeout=CALL
            )
        )
        index = int(answer.headers["X-Etcd-Index"])
        if answer.status_code == 404:
            return index, []
        return index, list(_leaves(answer.json()["node"]))

    def _check(self) -> None:
        began = now()
        index, nodes = self._list()
        listed = {
            key: (node["createdIndex"], node["value"])
            for node in nodes
            if (key := split(node["key"].removeprefix(self._prefix)))
        }
        with self.changed:
            if self._state_at(index) == {
                key: (created, read(value)) for key, (created, value) in listed.items()
            }:
                self._verified = began
        self._closing.wait(CHECK_EVERY)

    def _state_at(self, index: int) -> dict[Key, tuple[int, Mapping[str, Any] | None]]:
        """Give what was live at an index: the present, without what came later."""
        state: dict[Key, tuple[int, Mapping[str, Any] | None]]
        state = {key: (c.created, c.value) for key, c in self.live.items()}
        later = []
        for change in reversed(self.changes):
            if change.version <= index:
                break
            later.append(change)
        touched = {(c.label, c.kind, c.name) for c in later}
        for key in touched:
            state.pop(key, None)
        for change in reversed(self.changes[: len(self.changes) - len(later)]):
            key = change.label, change.kind, change.name
            if not touched:
                break
            if key in touched:
                touched.discard(key)
                if change.value is not None:
                    state[key] = change.created, change.value
        return state

    def _watch(self) -> None:
        query = f"?wait=true&recursive=true&waitIndex={self._index + 1}"
        path = f"/v2/keys{self._prefix.rstrip('/')}{query}"
        try:
            endpoint = self._endpoints[self._member % len(self._endpoints)]
            answer = self._watcher.get(f"{endpoint}{path}", timeout=(CALL, STALE))
        except requests.RequestException:
            self._member += 1
            if now() - self._verified > STALE:
                raise
            return  # nothing has changed for so long
        if not answer.text:
            return
        event = answer.json()
        if event.get("errorCode") == 401:
            self._relist()
            return
        if "node" not in event:
            raise ValueError(answer.text)
        with self.changed:
            node, at = event["node"], now()
            self._index = max(self._index, int(node["modifiedIndex"]))
            if not node.get("dir"):
                action = event["action"]
                expired = {"expire": True, "delete": False, "compareAndDelete": False}
                self._one(node, at, expired.get(action))
                self.changed.notify_all()

    def _one(
        self,
        node: Mapping[str, Any],
        at: float,
        expired: bool | None,
        *,
        seen: bool = True,
    ) -> None:
        key = split(node["key"].removeprefix(self._prefix))
        if key is None:
            return
        value = read(node["value"]) if expired is None else None
        created, version = int(node["createdIndex"]), int(node["modifiedIndex"])
        change = Change(
            self._verified, at, *key, created, version, value, expired, None, seen
        )
        self._note(change)

    def _relist(self, *, first: bool = False) -> None:
        index, nodes = self._list()
        with self.changed:
            at = now()
            if not first:
                self._note(Change(self._verified, at, "", "gap", "", 0, index, None))
            for node in sorted(nodes, key=lambda node: int(node["modifiedIndex"])):
                self._one(node, at, None, seen=False)
            self._index = index
            self.changed.notify_all()


def _leaves(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for child in node.get("nodes", ()):
        if child.get("dir"):
            yield from _leaves(child)
        else:
            yield dict(child)

"""Observe etcd: one watch over all revisions (v3), a loop of watches by index (v2)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests

from integration.history.observer import CALL, Key, Observer, read, split
from integration.history.recorder import Change
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
        self._member = 0

    def _session(self) -> requests.Session:
        session: requests.Session = new_session(
            ca=self._access.ca, cert=self._access.cert
        )
        return session

    @property
    def _endpoint(self) -> Endpoint:
        return self._endpoints[self._member % len(self._endpoints)]

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
    """Follows every revision; foreign keys count too, so that none can be missing."""

    @property
    def revision(self) -> int:
        """Return the store's revision up to which everything was read."""
        return self._revision

    def _open(self) -> None:
        self._reader = self._session()
        self._revision = self._quorum()
        self._relist(first=True)

    def _work(self) -> list[Callable[[], None]]:
        return [self._watch, self._check]

    def _post(self, session: requests.Session, path: str, body: object) -> Any:
        answer = self._any(
            lambda e: session.post(f"{e}{path}", json=body, timeout=CALL)
        )
        return answer.json()

    def _quorum(self) -> int:
        body = {"key": _b64("\0"), "count_only": True, "limit": 1}
        answer = self._post(self._reader, "/v3/kv/range", body)
        return int(answer["header"]["revision"])

    def _check(self) -> None:
        """Compare with the quorum: what we know up to now is then complete."""
        began = now()
        revision = self._quorum()
        with self.changed:
            if self._revision >= revision:
                self._verified = began
        self._closing.wait(CHECK_EVERY)

    def _watch(self) -> None:
        """Follow until the stream ends, or is quiet: then its member may be cut off."""
        everything = {"key": _b64("\0"), "range_end": _b64("\0")}
        request = {**everything, "start_revision": str(self._revision + 1)}
        self._member += 1
        with (
            self._session() as session,
            session.post(
                f"{self._endpoint}/v3/watch",
                json={"create_request": request},
                stream=True,
                timeout=(CALL, STALE),
            ) as stream,
        ):
            for line in stream.iter_lines(chunk_size=None):
                result = json.loads(line).get("result", {})
                if result.get("compact_revision"):
                    self._relist()
                    return
                self._take(result.get("events", ()), now())
                if self._closing.is_set():
                    return

    def _take(self, events: Any, at: float) -> None:
        with self.changed:
            for event in events:
                record = event["kv"]
                revision = int(record["mod_revision"])
                if revision < self._revision:  # begun anew: had that one already
                    continue
                gone = event.get("type") == "DELETE"
                self._one(record, at, gone=gone)
            if events:
                self._revision = max(self._revision, revision)
                self.changed.notify_all()

    def _one(
        self, record: Mapping[str, str], at: float, *, gone: bool, seen: bool = True
    ) -> None:
        path = base64.b64decode(record["key"]).decode(errors="replace")
        key = split(path.removeprefix(self._prefix))
        if not path.startswith(self._prefix) or key is None:
            return
        known = self.live.get(key)
        created = int(record.get("create_revision", 0))
        if gone:
            created = known.created if known else 0
        value = None if gone else read(base64.b64decode(record["value"]).decode())
        version = int(record["mod_revision"])
        change = Change(
            self._verified, at, *key, created, version, value, None, None, seen
        )
        self._note(change)

    def _relist(self, *, first: bool = False) -> None:
        """Begin from what is there now; what went before is not known."""
        span = {"key": _b64("\0"), "range_end": _b64("\0")}
        order = {"sort_target": "MOD", "sort_order": "ASCEND"}
        answer = self._post(self._reader, "/v3/kv/range", span | order)
        with self.changed:
            at = now()
            if not first:
                gap = Change(self._verified, at, "", "gap", "", 0, 0, None)
                self._note(gap)
            for record in answer.get("kvs", ()):
                self._one(record, at, gone=False, seen=False)
            self._revision = int(answer["header"]["revision"])
            self.changed.notify_all()


class Etcd2Observer(_EtcdObserver):
    """Follows the index; whether anything is missing is told by comparing listings."""

    def _open(self) -> None:
        self._reader = self._session()
        self._watcher = self._session()
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
            answer = self._watcher.get(f"{self._endpoint}{path}", timeout=(CALL, STALE))
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


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

"""The store's own ordered log of changes, read beside the product and not through it.

etcd v3: one watch over all revisions; etcd v2: a loop of watches by index; SQLite: an
audit table that triggers fill, put into the file by us; DynamoDB: the log that our
server for tests keeps. When a change took place is
known only between two bounds: `at` is when we learned of it, `after` the beginning of
the last quorum read that showed nothing newer than what we had. So an observer that
lags behind, like the store itself in an outage, makes bounds wide and never wrong.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from integration.history.recorder import Change
from integration.support.dynamodb import DynamoDB
from service_monitor.errors import StoreError
from service_monitor.net.calls import Bounds
from service_monitor.net.http import new_session
from service_monitor.stores.dynamodb.aws import parse_place
from service_monitor.stores.etcd.endpoints import Endpoint, parse_endpoints
from service_monitor.stores.opening import open_store
from service_monitor.timing import now

CHECK_EVERY = 0.2  # seconds between two quorum reads
STALE = 2.0  # seconds of quiet after which the watch tries the next member
POLL = 0.02  # seconds between two looks into the audit table
GRACE = 0.1  # seconds for a write that began before a deadline to be committed
CALL = 3.0  # seconds for a request

# urllib3 raises its own and AttributeError when a stream is closed under its reader.
TROUBLE = (
    *(requests.RequestException, urllib3.exceptions.HTTPError, AttributeError),
    *(OSError, sqlite3.Error, ValueError),
)

Key = tuple[str, str, str]


class Observer(ABC):
    """Follows the store from its entering on; `changes` is the log so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.live: dict[Key, Change] = {}
        self.changed = threading.Condition()
        self.failed = ""  # a bug of ours: nothing is observed any more
        self._verified = now()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._open()
        for work in self._work():
            thread = threading.Thread(target=self._repeat, args=(work,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(CALL + 1)

    def wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Block until something holds that changes may bring about."""
        with self.changed:
            return self.changed.wait_for(holds, seconds)

    def ticket(self, label: str, name: str) -> Change | None:
        """Return the ticket as last seen."""
        return self.live.get((label, "lease", name))

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _work(self) -> list[Callable[[], None]]:
        """Return what to do again and again, each in a thread of its own."""

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                work()
            except TROUBLE:
                self._closing.wait(0.1)
            except BaseException as error:
                self.failed = repr(error)
                raise

    def _note(self, change: Change) -> None:
        """Take one change in; the lock of `changed` is held."""
        self.changes.append(change)
        key = change.label, change.kind, change.name
        if change.kind == "gap":
            self.live.clear()
        elif change.value is None:
            self.live.pop(key, None)
        else:
            self.live[key] = change


def split(path: str) -> Key | None:
    """Read `label/lease/name`; None for what is not ours."""
    parts = path.strip("/").split("/")
    if len(parts) != 3 or parts[1] not in ("lease", "hosts"):
        return None
    return parts[0], parts[1], parts[2]


def _read(text: str) -> dict[str, Any]:
    """Read a record; what is none is kept as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"text": text}


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
        value = None if gone else _read(base64.b64decode(record["value"]).decode())
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
                key: (created, _read(value)) for key, (created, value) in listed.items()
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
        value = _read(node["value"]) if expired is None else None
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


_AUDIT = """
CREATE TABLE IF NOT EXISTS history_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, key TEXT, value TEXT,
    created INTEGER, version INTEGER, deadline REAL
);
CREATE TRIGGER IF NOT EXISTS history_insert AFTER INSERT ON records BEGIN
    INSERT INTO history_audit (what, key, value, created, version, deadline) VALUES
    ('put', NEW.key, NEW.value, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_update AFTER UPDATE OF value, version ON records
BEGIN
    INSERT INTO history_audit (what, key, value, created, version, deadline) VALUES
    ('put', NEW.key, NEW.value, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_extend AFTER UPDATE OF deadline ON records BEGIN
    INSERT INTO history_audit (what, key, created, version, deadline) VALUES
    ('extend', NEW.key, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_delete AFTER DELETE ON records BEGIN
    INSERT INTO history_audit (what, key, created, version, deadline) VALUES
    ('gone', OLD.key, OLD.created, OLD.version, OLD.deadline);
END;
"""


class SqliteObserver(Observer):
    """Reads what triggers wrote; a record is dead at its deadline, swept or not."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._path = unquote(url.removeprefix("sqlite://"))

    def _open(self) -> None:
        # The product has made its tables by now: see `Rig`.
        self._db = sqlite3.connect(
            self._path, timeout=CALL, isolation_level=None, check_same_thread=False
        )
        self._db.executescript(f"BEGIN IMMEDIATE; {_AUDIT} COMMIT;")
        row = self._db.execute("SELECT max(id) FROM history_audit").fetchone()
        self._last = int(row[0] or 0)
        self._deadlines: dict[Key, float] = {}

    def _work(self) -> list[Callable[[], None]]:
        return [self._poll]

    def _poll(self) -> None:
        began = now()
        rows = self._db.execute(
            "SELECT id, what, key, value, created, version, deadline"
            " FROM history_audit WHERE id > ? ORDER BY id",
            (self._last,),
        ).fetchall()
        at = now()
        with self.changed:
            before = len(self.changes)
            for n, row in enumerate(rows):
                self._row(row, rows[n + 1 : n + 2], at)
                self._last = row[0]
            # Where nobody writes nobody sweeps; readers count it as gone already.
            for key, deadline in list(self._deadlines.items()):
                if deadline < began - GRACE:
                    self._gone(key, at, deadline)
            self._verified = began
            if len(self.changes) > before:
                self.changed.notify_all()
        self._closing.wait(POLL)

    def _row(self, row: Any, following: list[Any], at: float) -> None:
        _, what, path, text, created, version, deadline = row
        key = split(path)
        if key is None:
            return
        if what == "gone":
            known = self.live.get(key)
            if known and known.created == created:
                self._gone(key, at, deadline)
            return
        known = self.live.get(key)
        if what == "put" or (known and known.created == created):
            self._deadlines[key] = deadline
        if what == "put":
            for next_ in following:  # the second statement of the same write
                if next_[1] == "extend" and next_[2] == path:
                    deadline = next_[6]
            value = _read(text)
            change = Change(
                self._verified, at, *key, created, version, value, None, deadline
            )
            self._note(change)

    def _gone(self, key: Key, at: float, deadline: float) -> None:
        known, after = self.live[key], self._verified
        self._deadlines.pop(key, None)
        expired: bool | None = deadline <= after
        if not expired and deadline > at:
            expired = False
        elif not expired:
            expired = None
        self._note(
            Change(
                deadline if expired else after,
                at,
                *key,
                known.created,
                known.version,
                None,
                expired,
                deadline,
            )
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._db.close()


class DynamoObserver(Observer):
    """Reads the log of our DynamoDB server, which lets in one request at a time.

    What is out of time there is gone when somebody looks and deletes it: so we look.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        place = parse_place(url)
        self._table = place.table
        self._prefix = f"{place.prefix}/".lstrip("/")
        endpoint = urlsplit(place.endpoint or "")
        self._server = DynamoDB(endpoint.port or 0, str(endpoint.hostname))
        self._store = open_store(url, Bounds())
        self._seen = 0

    def _open(self) -> None:
        try:
            self._poll()
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"{self._server.endpoint} keeps no log to judge by ({error}): only "
                "integration.support.dynamodb does"
            ) from None

    def _work(self) -> list[Callable[[], None]]:
        return [self._poll, self._sweep]

    def _sweep(self) -> None:
        with suppress(StoreError):  # the store is being let fail
            self._store.list("")
        self._closing.wait(1.0)

    def _poll(self) -> None:
        told = self._server.control("log", since=self._seen)
        with self.changed:
            for change in told:
                self._seen += 1
                key = split(change["path"].removeprefix(self._prefix))
                if key and change["table"] == self._table and not change["extended"]:
                    self._note(_change(key, change))
            if told:
                self.changed.notify_all()
        self._closing.wait(POLL)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._store.close()


def _change(key: Key, told: Mapping[str, Any]) -> Change:
    value = None if told["value"] is None else _read(told["value"])
    numbers = told["created"], told["version"]
    bounds = told["after"], told["at"]
    return Change(*bounds, *key, *numbers, value, told["expired"], told["ends"])


def observe(url: str) -> Observer:
    """Return the observer for a store's URL."""
    if url.startswith("dynamodb"):
        return DynamoObserver(url)
    if url.startswith("sqlite"):
        return SqliteObserver(url)
    if url.startswith("etcd2"):
        return Etcd2Observer(url)
    return Etcd3Observer(url)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

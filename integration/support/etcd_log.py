"""etcd's own log of changes: whoever wants to know what happened reads it here."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

import requests

from integration.support.etcd import EtcdError
from service_monitor.timing import now

CALL_TIMEOUT = 3.0
"""Seconds of silence after which a listener connects anew, and of another call."""


class Change(NamedTuple):
    """One event of the store's own log; `at` is `now()` when we learned of it.

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


Ask = Callable[[str, object], dict[str, Any]]
Connect = Callable[[], http.client.HTTPConnection]


def connecting(url: str, tls: ssl.SSLContext | None = None) -> Connect:
    """Give a function that connects to a member; `url` is where clients reach it."""
    place = urlsplit(url)
    host, port = str(place.hostname), place.port

    def connect() -> http.client.HTTPConnection:
        if place.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=CALL_TIMEOUT, context=tls
            )
        return http.client.HTTPConnection(host, port, timeout=CALL_TIMEOUT)

    return connect


class ChangeLog:
    """Every change under a prefix, once and in order, whatever happens to members.

    All members tell the same log, so it listens to each and takes who is first; a
    listener that was cut off goes on behind what is known. What a DELETE deleted comes
    from the log itself, since compaction would take it away from etcd's answer.

    The log begins with revision `since`, without one with what comes now. `take` is
    given what was there before it (`seen` is False, the oldest change first), then each
    change, from one thread at a time, before `revision` tells of it. Raises EtcdError
    if etcd has forgotten that revision already.
    """

    def __init__(
        self,
        members: Sequence[Connect],
        ask: Ask,
        prefix: str,
        since: int | None = None,
        take: Callable[[Sequence[Change], bool], None] = lambda changes, seen: None,
    ) -> None:
        self.prefix = prefix
        self._take = take
        self._changes: list[Change] = []
        self._problem: str | None = None
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._open: dict[int, http.client.HTTPConnection] = {}
        found, self._revision = self._before(ask, since)
        self._state = {text(kv["key"]): kv for kv in found}
        at = now()
        there = [_change(at, kv) for kv in found]
        take(sorted(there, key=lambda change: change.mod_revision), False)
        self._threads = [
            threading.Thread(target=self._listen, args=(n, connect), daemon=True)
            for n, connect in enumerate(members)
        ]
        for thread in self._threads:
            thread.start()

    def _before(self, ask: Ask, since: int | None) -> tuple[list[dict[str, Any]], int]:
        """Return what was there when the log begins, and the revision before it."""
        body = {"key": b64(self.prefix), "range_end": b64(after(self.prefix))}
        if since == 1:
            return [], 0
        if since is not None:
            body["revision"] = str(since - 1)
        try:
            answer = ask("/v3/kv/range", body)
        except requests.HTTPError as error:
            said = error.response.text.strip()
            raise EtcdError(f"no log from revision {since} on: {said}") from error
        newest = int(answer["header"]["revision"])
        return answer.get("kvs", []), newest if since is None else since - 1

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
    def problem(self) -> str | None:
        """Say why some of it is lost and nothing more comes; None if all is well."""
        return self._problem

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

    def _listen(self, number: int, connect: Connect) -> None:
        while not self._closed.is_set():
            connection = connect()
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
            "key": b64("\0"),
            "range_end": b64("\0"),
            "start_revision": str(self._revision + 1),
        }
        body = json.dumps({"create_request": request})
        connection.request("POST", "/v3/watch", body)
        response = connection.getresponse()
        while line := response.readline():
            at = now()
            result = json.loads(line)["result"]
            if result.get("canceled"):
                self._cancelled(int(result.get("compact_revision", 0)), line)
                return
            if events := result.get("events"):
                self._record(at, events)

    def _cancelled(self, compacted: int, told: bytes) -> None:
        """Close the log if what was not read yet has been compacted away."""
        with self._news:
            if compacted > self._revision + 1:
                self._problem = told.decode()
                self._closed.set()
                self._news.notify_all()

    def _record(self, at: float, events: list[dict[str, Any]]) -> None:
        with self._news:
            known = revision = self._revision
            if self._problem:
                return
            new: list[Change] = []
            for event in events:
                kv = event["kv"]
                if int(kv["mod_revision"]) <= known:
                    continue
                revision = int(kv["mod_revision"])
                if not (key := text(kv["key"])).startswith(self.prefix):
                    continue
                if event.get("type") == "DELETE":
                    new.append(_change(at, self._state.pop(key), revision))
                else:
                    self._state[key] = kv
                    new.append(_change(at, kv))
            if new:
                self._take(new, True)
                self._changes += new
            self._revision = revision
            self._news.notify_all()


def _change(at: float, kv: dict[str, Any], deleted: int = 0) -> Change:
    """Read a record; `deleted` is the revision at which it went, if it did."""
    modified = int(kv["mod_revision"])
    return Change(
        at,
        deleted or modified,
        "DELETE" if deleted else "PUT",
        text(kv["key"]),
        text(kv.get("value", "")),
        int(kv["create_revision"]),
        modified,
        int(kv.get("lease", 0)),
    )


def after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")

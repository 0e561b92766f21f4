"""etcd's own log of changes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

import requests

from integration.support.etcd import (
    EtcdError,
)

CALL_TIMEOUT = 3.0


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
        before = {"key": b64(prefix), "range_end": b64(after(prefix))}
        if since > 1:
            before["revision"] = str(since - 1)
            try:
                found = ask("/v3/kv/range", before).get("kvs", ())
            except requests.HTTPError as error:
                said = error.response.text.strip()
                raise EtcdError(f"no log from revision {since} on: {said}") from error
        else:
            found = ()
        self._state = {text(kv["key"]): kv for kv in found}
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
            "key": b64("\0"),
            "range_end": b64("\0"),
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
                if (key := text(kv["key"])).startswith(self.prefix):
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
                            text(kv.get("value", "")),
                            int(kv["create_revision"]),
                            int(kv["mod_revision"]),
                            int(kv.get("lease", 0)),
                        )
                    )
            self._news.notify_all()


def after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")

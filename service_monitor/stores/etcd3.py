"""Etcd v3 over its JSON gateway (etcd 3.4 and later).

A record hangs on an etcd lease of its own, whose id we choose: so a grant whose reply
was lost can be repeated, and a write still on its way dies with the revoked lease.
`created` is the create revision, `version` the mod revision.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from service_monitor.calls import Stop, bounded
from service_monitor.credentials import is_plain
from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    Stopped,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.records import Record, Snapshot
from service_monitor.shown import hide
from service_monitor.stores import CALL_TIMEOUT
from service_monitor.stores.endpoints import Access, Endpoint, Failover
from service_monitor.timing import now

R = TypeVar("R")
Compare = list[dict[str, str]]

# gRPC codes, https://grpc.io/docs/guides/status-codes/
_INVALID, _NOT_FOUND, _DENIED, _FAILED_PRECONDITION = 3, 5, 7, 9
_UNIMPLEMENTED, _UNAUTHENTICATED = 12, 16
_FINAL = {
    _INVALID,
    _NOT_FOUND,
    _DENIED,
    _FAILED_PRECONDITION,
    _UNIMPLEMENTED,
    _UNAUTHENTICATED,
}
# After these etcd's own client authenticates again, whatever their code.
_STALE_TOKEN = (
    "invalid auth token",
    "user name is empty",
    "revision in header is old",
    "revision of auth store is old",
)
_NONSENSE = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""What reading an answer raises that is not of etcd's v3 API."""


_NOT_ETCD = "not an answer of etcd's v3 API"
_LEAST = 0.05
"""Seconds for a request whose share was used up by one before it."""


class _Answer(StoreRefused):
    """An error that etcd itself gave."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Etcd3Store:
    """The store primitives on etcd v3."""

    def __init__(self, endpoints: list[Endpoint], access: Access, stop: Stop) -> None:
        import requests  # the slow import, only for who uses it

        from service_monitor.http import new_session

        self._failover = Failover(endpoints)
        self._access = access
        self._stop = stop
        self._prefix = f"{access.prefix}/"
        self._session = new_session(ca=access.ca, cert=access.cert)
        self._request_error = requests.RequestException
        self._token: str | None = None
        self._unused: set[int] = set()  # leases granted by us that carry no record
        self._spare: tuple[float, int] | None = None
        self._doubtful: dict[float, int] = {}  # by ttl: grants without a reply

    def create(self, key: str, value: str, ttl: float) -> Record:
        lease = self._grant(ttl)
        put = {"key": self._key(key), "value": _b64(value), "lease": str(lease)}
        compare = {"key": self._key(key), "target": "CREATE", "create_revision": "0"}
        found, revision = self._txn([compare], {"request_put": put}, key)
        if revision is not None:
            self._unused.discard(lease)
            return Record(key, value, revision, revision, lease)
        if found is None:  # deleted between the comparison and now: cannot be
            raise StoreUnavailable(f"etcd contradicts itself about {key}")
        if found.handle == lease:  # an earlier try of this very call came through
            self._unused.discard(lease)
            return found
        raise KeyExists(found)

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        put: dict[str, Any] = {"key": self._key(record.key), "value": _b64(value)}
        if ttl is None:
            lease, put["ignore_lease"] = record.handle, True
        else:
            lease = self._take_spare(ttl) or self._grant(ttl)
            put["lease"] = str(lease)
        found, revision = self._txn(
            self._unchanged(record), {"request_put": put}, record.key
        )
        if revision is None:
            if found is None or found.created != record.created:
                raise RecordGone(record.key)
            if found.value != value or found.handle != lease:
                raise Conflict(found)
            revision = found.version  # an earlier try of this very call came through
        self._unused.discard(lease)
        return Record(record.key, value, record.created, revision, lease)

    def keep_alive(self, record: Record, ttl: float) -> Record:
        if not self._renew(record.handle):
            raise RecordGone(record.key)
        return record

    def delete(self, record: Record) -> None:
        request = {"request_delete_range": {"key": self._key(record.key)}}
        found, revision = self._txn(self._unchanged(record), request, record.key)
        if revision is None and found is not None and found.created == record.created:
            raise Conflict(found)

    def list(self, prefix: str) -> Snapshot:
        def read(answer: dict[str, Any]) -> Snapshot:
            records = tuple(self._record(kv) for kv in answer.get("kvs", ()))
            return Snapshot(records, int(answer["header"]["revision"]))

        order = {"sort_target": "CREATE", "sort_order": "ASCEND"}
        return self._post("/v3/kv/range", self._range(prefix) | order, read)

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        request = self._range(prefix) | {"start_revision": str(since.cursor + 1)}
        if gone:
            request["filters"] = ["NOPUT"]
        endpoint = self._failover.current

        def watch() -> None:
            with self._session.post(
                f"{endpoint}/v3/watch",
                json={"create_request": request},
                headers=self._headers(),
                timeout=(min(timeout, CALL_TIMEOUT), timeout),
                stream=True,
            ) as stream:
                if stream.status_code != 200:
                    raise self._error(endpoint, stream.status_code, stream.text)
                for line in stream.iter_lines(chunk_size=None):
                    if _changed(json.loads(line)):
                        return
            raise StoreUnavailable(f"{endpoint}: ended the watch")

        try:
            bounded(watch, timeout, self._stop, waits=True)
        except TimeoutError:
            return
        except _NONSENSE as error:
            raise StoreUnavailable(f"{endpoint}: {_NOT_ETCD}") from error
        except (self._request_error, OSError) as error:
            if describe(error) != "no answer in time":
                raise StoreUnavailable(f"{endpoint}: {describe(error)}") from error

    def prepare(self, ttl: float) -> None:
        """Grant the lease that a granted ticket moves to, or keep it alive."""
        lease = self._take_spare(ttl) or self._grant(ttl)
        self._spare = ttl, lease

    def time_left(self, record: Record) -> float:
        return self._post(
            "/v3/lease/timetolive",
            {"ID": str(record.handle)},
            lambda answer: max(0.0, float(answer["TTL"])),
        )

    def local_address(self) -> str:
        return self._failover.local_address(CALL_TIMEOUT, self._stop)

    def close(self) -> None:
        with suppress(StoreUnavailable, Stopped):  # they lapse after their ttl
            for lease in self._unused:
                with suppress(StoreRefused):  # that one never came to be
                    self._post("/v3/lease/revoke", {"ID": str(lease)}, bool)
        self._unused.clear()
        self._session.close()

    # leases

    def _grant(self, ttl: float) -> int:
        lease = self._doubtful.pop(ttl, None) or secrets.randbits(62) + 1
        self._unused.add(lease)
        body = {"ID": str(lease), "TTL": math.ceil(ttl)}
        try:
            self._post("/v3/lease/grant", body, bool)
        except StoreUnavailable:
            self._doubtful[ttl] = lease
            raise
        except _Answer as error:
            # "already exists" is our own, by a lost reply; it may be old by now.
            if "already exists" in str(error) and self._renew(lease):
                return lease
            self._unused.discard(lease)
            raise
        return lease

    def _renew(self, lease: int) -> bool:
        return self._post(
            "/v3/lease/keepalive",
            {"ID": str(lease)},
            lambda answer: int(answer["result"].get("TTL", 0)) > 0,
        )

    def _take_spare(self, ttl: float) -> int | None:
        """Return the lease prepared for this ttl with its whole ttl before it."""
        spare, self._spare = self._spare, None
        if spare and spare[0] == ttl and self._renew(spare[1]):
            return spare[1]
        return None

    # requests

    def _key(self, key: str) -> str:
        return _b64(self._prefix + key)

    def _range(self, prefix: str) -> dict[str, Any]:
        span = {"key": self._key(prefix)}
        if prefix.endswith("/") or not prefix:
            end = self._prefix + prefix
            span["range_end"] = _b64(end[:-1] + chr(ord(end[-1]) + 1))
        return span

    def _record(self, kv: dict[str, str]) -> Record:
        lease = int(kv.get("lease", 0))
        self._unused.discard(lease)  # it carries one, although the reply was lost
        return Record(
            key=_text(kv["key"]).removeprefix(self._prefix),
            value=_text(kv.get("value", "")),
            created=int(kv["create_revision"]),
            version=int(kv["mod_revision"]),
            handle=lease,
        )

    def _unchanged(self, record: Record) -> Compare:
        key = self._key(record.key)
        return [
            {
                "key": key,
                "target": "CREATE",
                "create_revision": str(record.created),
            },
            {"key": key, "target": "MOD", "mod_revision": str(record.version)},
        ]

    def _txn(
        self, compare: Compare, request: dict[str, Any], key: str
    ) -> tuple[Record | None, int | None]:
        """Run it if all comparisons hold; return what is there, or the revision."""

        def read(answer: dict[str, Any]) -> tuple[Record | None, int | None]:
            if answer.get("succeeded"):
                return None, int(answer["header"]["revision"])
            kvs = answer["responses"][0]["response_range"].get("kvs")
            return (self._record(kvs[0]) if kvs else None), None

        look = {"request_range": {"key": self._key(key)}}
        body = {"compare": compare, "success": [request], "failure": [look]}
        return self._post("/v3/kv/txn", body, read)

    def _post(
        self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], R]
    ) -> R:
        """Ask one endpoint after the other; return what `read` finds in the answer."""

        def ask(endpoint: Endpoint, seconds: float) -> R:
            deadline = now() + seconds

            def attempt() -> R:
                if self._access.user and self._token is None:
                    self._authenticate(endpoint, deadline)
                return self._send(endpoint, path, body, read, deadline)

            try:
                return attempt()
            except _Answer as error:
                if error.code != _UNAUTHENTICATED or not self._access.user:
                    raise
                self._token = None  # expired: simple tokens last 5 minutes
                return attempt()

        seconds = min(CALL_TIMEOUT, self._stop.time_left())
        return self._failover.call(ask, seconds)

    def _send(
        self,
        endpoint: Endpoint,
        path: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], R],
        deadline: float,
    ) -> R:
        seconds = max(_LEAST, deadline - now())

        def post() -> tuple[int, str]:
            answer = self._session.post(
                f"{endpoint}{path}",
                json=body,
                headers=self._headers(),
                timeout=seconds,
                allow_redirects=False,
            )
            return answer.status_code, answer.text

        try:
            status, text = bounded(post, seconds, self._stop)
        # ValueError: of what cannot be sent, which `requests` does not wrap.
        except (self._request_error, OSError, ValueError) as error:
            raise StoreUnavailable(describe(error)) from error
        if status != 200:
            raise self._error(endpoint, status, text)
        try:
            answer = json.loads(text)
            if not {"header", "result"} & set(answer):
                raise ValueError(answer)
            return read(answer)
        except _NONSENSE as error:
            raise StoreUnavailable(_NOT_ETCD) from error

    def _authenticate(self, endpoint: Endpoint, deadline: float) -> None:
        self._token = ""
        body = {"name": self._access.user, "password": self._access.password}
        path = "/v3/auth/authenticate"
        try:
            token = self._send(
                endpoint, path, body, lambda answer: str(answer["token"]), deadline
            )
        except _Answer as error:
            if "not enabled" in str(error):
                return  # an etcd without users lets everybody in
            self._token = None
            raise StoreRefused(f"user {self._access.user!r}: {error}") from error
        except StoreUnavailable:
            self._token = None
            raise
        hide(token)
        if not is_plain(token):  # a header that no library would send
            self._token = None
            raise StoreUnavailable(_NOT_ETCD)
        self._token = token

    def _error(self, endpoint: Endpoint, status: int, text: str) -> StoreError:
        """Turn an HTTP error into "try elsewhere" or "this will not be served"."""
        try:
            body = json.loads(text)
            if isinstance(body.get("error"), dict):  # how it puts a stream's errors
                body = body["error"]
            message, code = str(body["message"]), int(body.get("code", 0))
        except _NONSENSE:
            if status == 404:
                what = "no v3 API here: is it etcd 3.4 or later?"
                return StoreRefused(f"{endpoint}: {what}")
            return StoreUnavailable(f"HTTP {status}")
        if status == 401 or any(stale in message for stale in _STALE_TOKEN):
            code = _UNAUTHENTICATED
        if code == _DENIED:
            message += f": the user needs a role with readwrite on {self._prefix}"
        if code in _FINAL:
            return _Answer(f"{endpoint}: {message}", code)
        return StoreUnavailable(message)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}


def _changed(message: Any) -> bool:
    """Tell whether a watch's message says to list again; a cancelled watch does too."""
    if not isinstance(message, dict):
        raise ValueError(message)
    if "error" in message:
        raise StoreUnavailable(str(message["error"].get("message", message["error"])))
    result = message.get("result", {})
    if result.get("canceled") and not result.get("compact_revision"):
        raise StoreUnavailable(result.get("cancel_reason", "the watch was cancelled"))
    return bool(result.get("events") or result.get("canceled"))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")

"""Etcd v3 over its JSON gateway (etcd 3.4 and later).

A record hangs on an etcd lease of its own, whose id we choose: so a grant whose reply
was lost can be repeated, and a write still on its way dies with the revoked lease.
`created` is the create revision, `version` the mod revision.
"""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service_monitor.errors import (
    Conflict,
    KeyExists,
    LocalLack,
    RecordGone,
    Stopped,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.etcd.answers import LeaseGone, Refusal
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.gateway import Gateway

Compare = list[dict[str, str]]
Until = float | None


class Etcd3Store:
    """The store primitives on etcd v3."""

    def __init__(
        self, endpoints: list[Endpoint], access: Access, bounds: Bounds
    ) -> None:
        self._gateway = Gateway(endpoints, access, bounds)
        self._bounds = bounds
        self._prefix = f"{access.prefix}/"
        self._unused: set[int] = set()  # leases granted by us that carry no record
        self._spare: tuple[float, int] | None = None
        self._doubtful: dict[float, int] = {}  # by ttl: grants without a reply

    def create(self, key: str, value: str, ttl: float) -> Record:
        def put(lease: int, until: float) -> Record:
            put = {"key": self._key(key), "value": _b64(value), "lease": str(lease)}
            compare = {"key": self._key(key), "target": "CREATE"}
            absent = [compare | {"create_revision": "0"}]
            found, revision = self._txn(absent, {"request_put": put}, key, until)
            if revision is not None:
                return Record(key, value, revision, revision, lease)
            if found is None:  # deleted between the comparison and now: cannot be
                raise StoreUnavailable(f"etcd contradicts itself about {key}")
            if found.handle != lease:  # else an earlier try of this very call
                raise KeyExists(found)
            return found

        return self._on_lease(ttl, put)

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        def put(lease: int, until: Until = None) -> Record:
            put: dict[str, Any] = {"key": self._key(record.key), "value": _b64(value)}
            put |= {"ignore_lease": True} if ttl is None else {"lease": str(lease)}
            same = self._unchanged(record)
            found, revision = self._txn(same, {"request_put": put}, record.key, until)
            if revision is None:
                if found is None or found.created != record.created:
                    raise RecordGone(record.key)
                if found.value != value or found.handle != lease:
                    raise Conflict(found)
                revision = found.version  # an earlier try of this call came through
            return Record(record.key, value, record.created, revision, lease)

        if ttl is None:
            return put(record.handle)
        return self._on_lease(ttl, put)

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
        return self._gateway.post("/v3/kv/range", self._range(prefix) | order, read)

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        request = self._range(prefix) | {"start_revision": str(since.cursor + 1)}
        if gone:
            request["filters"] = ["NOPUT"]
        self._gateway.watch(request, timeout)

    def prepare(self, ttl: float) -> None:
        """Grant the lease that a granted ticket moves to, or keep it alive."""
        self._spare = ttl, self._lease(ttl, self._gateway.deadline())

    def time_left(self, record: Record) -> float:
        body = {"ID": str(record.handle)}

        def read(answer: dict[str, Any]) -> float:
            # A zero is left out: it is in its last second.
            left = answer.get("TTL", 0) if "grantedTTL" in answer else answer["TTL"]
            return max(0.0, float(left))

        with suppress(LeaseGone):
            return self._gateway.post("/v3/lease/timetolive", body, read)
        return 0.0

    def local_address(self) -> str:
        return self._gateway.failover.local_address(CALL_TIMEOUT, self._bounds)

    def close(self) -> None:
        with suppress(StoreUnavailable, LocalLack, Stopped):  # they lapse
            for lease in self._unused:
                with suppress(StoreRefused):  # that one never came to be
                    self._gateway.post("/v3/lease/revoke", {"ID": str(lease)}, bool)
        self._unused.clear()
        self._gateway.close()

    # leases

    def _on_lease(self, ttl: float, put: Callable[[int, float], Record]) -> Record:
        """Write a record on a lease that carries none yet, all within one deadline.

        A pause of ours or of etcd's between the two can outlast the lease. Then nothing
        was written, and it is done once more on a new one.
        """
        until = self._gateway.deadline()
        ended: LeaseGone | None = None
        for take in (self._lease, self._grant):
            lease = take(ttl, until)
            try:
                record = put(lease, until)
            except LeaseGone as error:
                ended = error
                self._unused.discard(lease)
            else:
                self._unused.discard(lease)
                return record
        raise StoreUnavailable(f"{ended}: it ended before it was used") from ended

    def _lease(self, ttl: float, until: float) -> int:
        """Return the lease prepared for this ttl, renewed, or a new one."""
        spare, self._spare = self._spare, None
        if spare and spare[0] == ttl:
            if self._renew(spare[1], until):
                return spare[1]
            self._unused.discard(spare[1])
        return self._grant(ttl, until)

    def _grant(self, ttl: float, until: float) -> int:
        for _ in range(2):
            lease = self._doubtful.pop(ttl, None) or secrets.randbits(62) + 1
            self._unused.add(lease)
            body = {"ID": str(lease), "TTL": math.ceil(ttl)}
            try:
                self._gateway.post("/v3/lease/grant", body, bool, until)
                return lease
            except StoreUnavailable:
                self._doubtful[ttl] = lease
                raise
            except Refusal as error:
                if "already exists" not in str(error):
                    self._unused.discard(lease)
                    raise
            # It is our own, by a lost reply; it may be old by now.
            if self._renew(lease, until):
                return lease
            self._unused.discard(lease)
        raise StoreUnavailable("lease not found: it ended before it was used")

    def _renew(self, lease: int, until: Until = None) -> bool:
        with suppress(LeaseGone):
            return self._gateway.post(
                "/v3/lease/keepalive",
                {"ID": str(lease)},
                lambda answer: int(answer["result"].get("TTL", 0)) > 0,
                until,
            )
        return False

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
        created = {"target": "CREATE", "create_revision": str(record.created)}
        version = {"target": "MOD", "mod_revision": str(record.version)}
        return [{"key": key} | created, {"key": key} | version]

    def _txn(
        self, compare: Compare, request: dict[str, Any], key: str, until: Until = None
    ) -> tuple[Record | None, int | None]:
        """Run it if all comparisons hold; return what is there, or the revision."""

        def read(answer: dict[str, Any]) -> tuple[Record | None, int | None]:
            if answer.get("succeeded"):
                return None, int(answer["header"]["revision"])
            kvs = answer["responses"][0]["response_range"].get("kvs")
            return (self._record(kvs[0]) if kvs else None), None

        look = {"request_range": {"key": self._key(key)}}
        body = {"compare": compare, "success": [request], "failure": [look]}
        return self._gateway.post("/v3/kv/txn", body, read, until)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")

"""Etcd v3 over its JSON gateway (etcd 3.4 and later).

A record hangs on an etcd lease of its own, a durable one on none. `created` is the
create revision, `version` the mod revision, `handle` the lease.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

from service_monitor.errors import Conflict, KeyExists, RecordGone, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT, is_everything_below
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.gateway import Gateway
from service_monitor.stores.etcd.leases import Leases
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.reading import NotEtcd, Part
from service_monitor.stores.primitive import primitive

Compare = list[dict[str, str]]

_DURABLE = 0
"""What etcd has in place of a lease for a key that no lease ends."""


class Etcd3Store:
    """The primitives of `Store` on etcd v3, each within `call_timeout` seconds."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        bounds: Bounds,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._bounds = bounds
        self._call_timeout = call_timeout
        self._gateway = Gateway(endpoints, access, bounds)
        self._leases = Leases(self._gateway)
        self._prefix = f"{access.prefix}/"

    @primitive
    def create(self, key: str, value: str, ttl: float | None) -> Record:
        def put(lease: int) -> Record:
            put = {"key": self._key(key), "value": _b64(value), "lease": str(lease)}
            compare = {"key": self._key(key), "target": "CREATE"}
            absent = [compare | {"create_revision": "0"}]
            found, revision = self._txn(absent, {"request_put": put}, key)
            if revision is not None:
                return Record(key, value, revision, revision, lease)
            if found is None:  # deleted between the comparison and now: cannot be
                raise StoreUnavailable(f"etcd contradicts itself about {key}")
            # Else it is an earlier try of this very call.
            if (found.handle, found.value) != (lease, value):
                raise KeyExists(found)
            return found

        return put(_DURABLE) if ttl is None else self._leases.write(ttl, put)

    @primitive
    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        def put(lease: int) -> Record:
            put: dict[str, Any] = {"key": self._key(record.key), "value": _b64(value)}
            put |= {"ignore_lease": True} if ttl is None else {"lease": str(lease)}
            same = self._unchanged(record)
            found, revision = self._txn(same, {"request_put": put}, record.key)
            if revision is None:
                if found is None or found.created != record.created:
                    raise RecordGone(record.key)
                if found.value != value or found.handle != lease:
                    raise Conflict(found)
                revision = found.version  # an earlier try of this call came through
            return Record(record.key, value, record.created, revision, lease)

        return put(record.handle) if ttl is None else self._leases.write(ttl, put)

    @primitive
    def keep_alive(self, record: Record, ttl: float) -> Record:
        if not self._leases.renew(record.handle):
            raise RecordGone(record.key)
        return record

    @primitive
    def delete(self, record: Record) -> None:
        request = {"request_delete_range": {"key": self._key(record.key)}}
        found, revision = self._txn(self._unchanged(record), request, record.key)
        if revision is None and found is not None and found.created == record.created:
            raise Conflict(found)

    @primitive
    def list(self, prefix: str) -> Snapshot:
        def read(answer: Part) -> Snapshot:
            records = tuple(map(self._record, answer.parts("kvs")))
            return Snapshot(records, answer.part("header").number("revision"))

        order = {"sort_target": "CREATE", "sort_order": "ASCEND"}
        return self._gateway.post("/v3/kv/range", self._range(prefix) | order, read)

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        request = self._range(prefix) | {"start_revision": str(since.cursor + 1)}
        if gone:
            request["filters"] = ["NOPUT"]
        self._gateway.watch(request, timeout)

    @primitive
    def time_left(self, record: Record) -> float:
        lease = record.handle
        if lease == _DURABLE:  # no lease tells whether it is still there
            found = {each.created: each for each in self.list(record.key).records}
            if record.created not in found:
                return 0.0
            lease = found[record.created].handle
        return math.inf if lease == _DURABLE else self._leases.seconds_left(lease)

    @primitive
    def local_address(self) -> str:
        failover = self._gateway.failover
        return failover.local_address(self._bounds.time_left(), self._bounds)

    @primitive
    def close(self) -> None:
        self._leases.revoke_unused()
        self._gateway.close()

    def _key(self, key: str) -> str:
        return _b64(self._prefix + key)

    def _range(self, prefix: str) -> dict[str, Any]:
        span = {"key": self._key(prefix)}
        if is_everything_below(prefix):
            end = self._prefix + prefix
            span["range_end"] = _b64(end[:-1] + chr(ord(end[-1]) + 1))
        return span

    def _record(self, found: Part) -> Record:
        lease = found.number("lease", 0)
        self._leases.carries_a_record(lease)
        return Record(
            key=found.decoded("key").removeprefix(self._prefix),
            value=found.decoded("value", ""),
            created=found.number("create_revision"),
            version=found.number("mod_revision"),
            handle=lease,
        )

    def _unchanged(self, record: Record) -> Compare:
        key = self._key(record.key)
        created = {"target": "CREATE", "create_revision": str(record.created)}
        version = {"target": "MOD", "mod_revision": str(record.version)}
        return [{"key": key} | created, {"key": key} | version]

    def _txn(
        self, compare: Compare, request: dict[str, Any], key: str
    ) -> tuple[Record | None, int | None]:
        """Run it if all comparisons hold; return what is there, or the revision."""

        def read(answer: Part) -> tuple[Record | None, int | None]:
            if answer.flag("succeeded"):
                return None, answer.part("header").number("revision")
            responses = answer.parts("responses")
            if not responses or "response_range" not in responses[0]:
                raise NotEtcd("no response to the range")
            found = responses[0].part("response_range").parts("kvs")
            return (self._record(found[0]) if found else None), None

        look = {"request_range": {"key": self._key(key)}}
        body = {"compare": compare, "success": [request], "failure": [look]}
        return self._gateway.post("/v3/kv/txn", body, read)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

"""Etcd v2 through python-etcd: etcd up to 3.5, started with --enable-v2.

`created` is the createdIndex, `version` the modifiedIndex, a ttl is the server's and in
whole seconds. python-etcd's own failover, lock and endless watch are not used: they
lose endpoints, let a waiting ticket lapse and spin on a cleared index.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import connecting_within
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.etcd.endpoints import (
    Access,
    Endpoint,
    Failover,
    RefusedHere,
)
from service_monitor.stores.etcd.port import asks_for_the_other_kind
from service_monitor.stores.primitive import Bound, primitive
from service_monitor.timing import now

T = TypeVar("T")

_GONE = {"delete", "expire", "compareAndDelete"}


class Etcd2Store:
    """The store primitives on etcd v2."""

    def __init__(
        self, endpoints: list[Endpoint], access: Access, bounds: Bounds
    ) -> None:
        import etcd

        from service_monitor.stores.etcd import v2_client as etcd2_client

        logging.getLogger("etcd").setLevel(logging.CRITICAL)  # it logs tracebacks
        self._etcd = etcd
        self._failover = Failover(endpoints)
        self._access = access
        self._bounds = bounds
        self._bound = Bound()
        self._api = etcd2_client
        self._clients: dict[Endpoint, Any] = {}
        self._known: set[Endpoint] = set()  # where etcd has answered

    @primitive
    def create(self, key: str, value: str, ttl: float) -> Record:
        try:
            node = self._call(
                "write",
                lambda client: client.write(
                    self._key(key), value, ttl=math.ceil(ttl), prevExist=False
                ),
            )
        except self._etcd.EtcdAlreadyExist:
            found = self._get(key)
            if found is None:  # expired in between
                return self.create(key, value, ttl)
            if found.value != value:
                raise KeyExists(found) from None
            return found  # an earlier try of this call came through
        return self._record(node)

    @primitive
    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        # A write without ttl would live for ever. Rounded down, so that writing again
        # and again never lengthens a life.
        seconds = max(1, int(self.time_left(record)) - 1) if ttl is None else ttl
        try:
            node = self._call(
                "write",
                lambda client: client.write(
                    self._key(record.key),
                    value,
                    ttl=math.ceil(seconds),
                    prevIndex=record.version,
                ),
            )
        except self._etcd.EtcdKeyNotFound:
            raise RecordGone(record.key) from None
        except self._etcd.EtcdCompareFailed:
            found = self._same(record)
            if found.value != value:
                raise Conflict(found) from None
            return found  # an earlier try of this very call came through
        return self._record(node)

    @primitive
    def keep_alive(self, record: Record, ttl: float) -> Record:
        try:
            node = self._call(
                "renew a record",
                lambda client: client.refresh(
                    self._key(record.key), math.ceil(ttl), prevIndex=record.version
                ),
            )
        except self._etcd.EtcdKeyNotFound:
            raise RecordGone(record.key) from None
        except self._etcd.EtcdCompareFailed:
            found = self._same(record)
            if found.value != record.value:
                raise Conflict(found) from None
            return found  # refreshed; the reply was lost
        return replace(record, version=node.modifiedIndex)

    @primitive
    def delete(self, record: Record) -> None:
        try:
            self._call(
                "delete",
                lambda client: client.delete(
                    self._key(record.key), prevIndex=record.version
                ),
            )
        except self._etcd.EtcdKeyNotFound:
            return
        except self._etcd.EtcdCompareFailed:
            found = self._get(record.key)
            if found is not None and found.created == record.created:
                raise Conflict(found) from None

    @primitive
    def list(self, prefix: str) -> Snapshot:
        try:
            node = self._read(prefix, recursive=prefix.endswith("/") or not prefix)
        except self._etcd.EtcdKeyNotFound as error:
            return Snapshot((), int((error.payload or {}).get("index", 0)))
        records = [self._record(leaf) for leaf in node.leaves if not leaf.dir]
        records.sort(key=lambda record: record.created)
        return Snapshot(tuple(records), node.etcd_index)

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        endpoint = self._failover.current

        def watch() -> None:
            index = since.cursor + 1
            while True:
                event = self._client(endpoint).read(
                    self._key(prefix),
                    wait=True,
                    waitIndex=index,
                    recursive=prefix.endswith("/"),
                    timeout=timeout,
                )
                if not gone or event.action in _GONE:
                    return
                index = event.modifiedIndex + 1

        try:
            bounded(watch, timeout, self._bounds, waits=True)
        except (TimeoutError, self._etcd.EtcdWatchTimedOut):
            return
        except self._etcd.EtcdEventIndexCleared:
            return  # more than 1000 changes ago: the list tells
        except self._api.ERRORS as error:
            trouble = self._translate(error, endpoint, "watch", now())
            if isinstance(trouble, RefusedHere):  # which names no endpoint
                trouble = StoreRefused(f"{endpoint}: {trouble}")
            raise trouble from error

    def prepare(self, ttl: float) -> None:
        """Do nothing: a ttl goes with the write."""

    @primitive
    def time_left(self, record: Record) -> float:
        try:
            node = self._read(record.key)
        except self._etcd.EtcdKeyNotFound:
            return 0.0
        same = node.createdIndex == record.created
        return float(node.ttl or 0) if same else 0.0

    def local_address(self) -> str:
        return self._failover.local_address(CALL_TIMEOUT, self._bounds)

    def close(self) -> None:
        for client in self._clients.values():
            client.http.clear()

    def _key(self, key: str) -> str:
        return f"{self._access.prefix}/{key}".rstrip("/")

    def _record(self, node: Any) -> Record:
        return Record(
            key=node.key.removeprefix(f"{self._access.prefix}/"),
            value=node.value,
            created=node.createdIndex,
            version=node.modifiedIndex,
        )

    def _get(self, key: str) -> Record | None:
        try:
            return self._record(self._read(key))
        except self._etcd.EtcdKeyNotFound:
            return None

    def _same(self, record: Record) -> Record:
        found = self._get(record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _read(self, key: str, *, recursive: bool = False) -> Any:
        return self._call(
            "read",
            lambda client: client.read(
                self._key(key), quorum=True, recursive=recursive or None
            ),
        )

    def _client(self, endpoint: Endpoint) -> Any:
        client = self._clients.get(endpoint)
        if client is None:
            client = self._clients[endpoint] = self._api.new_client(
                endpoint, self._access
            )
        return client

    def _call(self, doing: str, function: Callable[[Any], T]) -> T:
        def ask(endpoint: Endpoint, seconds: float) -> T:
            deadline = now() + seconds

            def send() -> T:
                with connecting_within(seconds):  # python-etcd has one for all calls
                    return function(self._client(endpoint))

            try:
                found = bounded(send, seconds, self._bounds)
            except (
                self._etcd.EtcdKeyNotFound,
                self._etcd.EtcdAlreadyExist,
                self._etcd.EtcdCompareFailed,
            ):
                self._known.add(endpoint)
                raise
            except self._api.ERRORS as error:
                raise self._translate(error, endpoint, doing, deadline) from error
            self._known.add(endpoint)
            return found

        return self._failover.call(ask, self._bound.seconds(self._bounds))

    def _translate(
        self, error: BaseException, endpoint: Endpoint, doing: str, deadline: float
    ) -> StoreError:
        if isinstance(error, self._etcd.EtcdClusterIdChanged):
            if client := self._clients.pop(endpoint, None):
                client.http.clear()
            return StoreUnavailable("this is another cluster than before")
        return self._api.translate(
            error,
            endpoint,
            self._access,
            doing,
            known=endpoint in self._known,
            other_kind=asks_for_the_other_kind(endpoint, deadline, self._bounds),
        )

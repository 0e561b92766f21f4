"""Etcd v2 through python-etcd: etcd up to 3.5, started with --enable-v2.

`created` is the createdIndex, `version` the modifiedIndex, a ttl is the server's and in
whole seconds. python-etcd's own failover, lock and endless watch are not used: they
lose endpoints, let a waiting ticket lapse and spin on a cleared index.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import etcd

from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT, is_everything_below
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.v2_calls import Calls
from service_monitor.stores.etcd.v2_client import index_of
from service_monitor.stores.primitive import primitive

_GONE = {"delete", "expire", "compareAndDelete"}

logging.getLogger("etcd").setLevel(logging.CRITICAL)  # it logs tracebacks


class Etcd2Store:
    """The primitives of `Store` on etcd v2, each within `call_timeout` seconds."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        bounds: Bounds,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._bounds = bounds
        self._call_timeout = call_timeout
        self._calls = Calls(endpoints, access, bounds)
        self._prefix = access.prefix

    @primitive
    def create(self, key: str, value: str, ttl: float | None) -> Record:
        try:
            node = self._calls.ask(
                "write",
                lambda client: client.write(
                    self._key(key), value, ttl=_whole(ttl), prevExist=False
                ),
            )
        except etcd.EtcdAlreadyExist:
            found = self._get(key)
            if found is None:  # expired in between
                return self.create(key, value, ttl)
            if found.value != value:
                raise KeyExists(found) from None
            return found  # an earlier try of this call came through
        return self._record(node)

    @primitive
    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        # A write without ttl lives for ever. Rounded down, so that writing again and
        # again never lengthens a life.
        seconds = ttl
        if ttl is None and (left := self.time_left(record)) < math.inf:
            seconds = max(1.0, left - 1)
        try:
            node = self._calls.ask(
                "write",
                lambda client: client.write(
                    self._key(record.key),
                    value,
                    ttl=_whole(seconds),
                    prevIndex=record.version,
                ),
            )
        except etcd.EtcdKeyNotFound:
            raise RecordGone(record.key) from None
        except etcd.EtcdCompareFailed:
            found = self._same(record)
            if found.value != value:
                raise Conflict(found) from None
            return found  # an earlier try of this very call came through
        return self._record(node)

    @primitive
    def keep_alive(self, record: Record, ttl: float) -> Record:
        try:
            node = self._calls.ask(
                "renew a record",
                lambda client: client.refresh(
                    self._key(record.key), math.ceil(ttl), prevIndex=record.version
                ),
            )
        except etcd.EtcdKeyNotFound:
            raise RecordGone(record.key) from None
        except etcd.EtcdCompareFailed:
            found = self._same(record)
            if found.value != record.value:
                raise Conflict(found) from None
            return found  # refreshed; the reply was lost
        return replace(record, version=node.modifiedIndex)

    @primitive
    def delete(self, record: Record) -> None:
        try:
            self._calls.ask(
                "delete",
                lambda client: client.delete(
                    self._key(record.key), prevIndex=record.version
                ),
            )
        except etcd.EtcdKeyNotFound:
            return
        except etcd.EtcdCompareFailed:
            found = self._get(record.key)
            if found is not None and found.created == record.created:
                raise Conflict(found) from None

    @primitive
    def list(self, prefix: str) -> Snapshot:
        try:
            node = self._read(prefix, recursive=is_everything_below(prefix))
        except etcd.EtcdKeyNotFound as error:
            return Snapshot((), index_of(error))
        records = [self._record(leaf) for leaf in node.leaves if not leaf.dir]
        records.sort(key=lambda record: record.created)
        return Snapshot(tuple(records), node.etcd_index)

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        index = since.cursor + 1

        def watch(client: Any) -> None:
            nonlocal index
            while True:
                event = client.read(
                    self._key(prefix),
                    wait=True,
                    waitIndex=index,
                    recursive=is_everything_below(prefix),
                    timeout=timeout,
                )
                if not gone or event.action in _GONE:
                    return
                index = event.modifiedIndex + 1

        with suppress(etcd.EtcdEventIndexCleared):  # 1000 changes ago: the list tells
            self._calls.watch(watch, timeout)

    @primitive
    def time_left(self, record: Record) -> float:
        try:
            node = self._read(record.key)
        except etcd.EtcdKeyNotFound:
            return 0.0
        if node.createdIndex != record.created:
            return 0.0
        # A ttl of 0 is left out, too: of a record that ends this very moment.
        durable = node.ttl is None and node.expiration is None
        return math.inf if durable else float(node.ttl or 0)

    @primitive
    def local_address(self) -> str:
        failover = self._calls.failover
        return failover.local_address(self._bounds.time_left(), self._bounds)

    def close(self) -> None:
        self._calls.close()

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}".rstrip("/")

    def _record(self, node: Any) -> Record:
        return Record(
            key=node.key.removeprefix(f"{self._prefix}/"),
            value=node.value,
            created=node.createdIndex,
            version=node.modifiedIndex,
        )

    def _get(self, key: str) -> Record | None:
        try:
            return self._record(self._read(key))
        except etcd.EtcdKeyNotFound:
            return None

    def _same(self, record: Record) -> Record:
        found = self._get(record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _read(self, key: str, *, recursive: bool = False) -> Any:
        return self._calls.ask(
            "read",
            lambda client: client.read(
                self._key(key), quorum=True, recursive=recursive or None
            ),
        )


def _whole(ttl: float | None) -> int | None:
    """Return a ttl as etcd v2 takes it; None for a record that no ttl ends."""
    return None if ttl is None else math.ceil(ttl)

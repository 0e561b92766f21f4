"""The store primitives, and the way from a URL to a store.

The recipes are written once over this protocol; each store is one file beside this one,
imported only when its URL is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from service_monitor.calls import Stop
from service_monitor.errors import ConfigError
from service_monitor.net.escapes import unescape
from service_monitor.records import Record, Snapshot
from service_monitor.shown import mask_url, quoted
from service_monitor.stores.endpoints import default_url, parse_endpoints
from service_monitor.stores.etcdctl import refuse_quoted, refuse_unread

CALL_TIMEOUT = 5.0
"""Seconds for one call, failing over between all endpoints included."""


class Store(Protocol):
    """Six primitives; every call is bounded and may raise a `StoreError`.

    Keys are relative, without a leading slash. Where a `prefix` ends in a slash it
    means everything below it, else that one key.
    """

    def create(self, key: str, value: str, ttl: float) -> Record:
        """Write `key` if there is no live record, to live `ttl` seconds.

        Raises `KeyExists`. Repeating a create whose reply was lost raises it too, with
        one's own record in it: compare the nonce.
        """
        ...

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        """Replace the value if the record is still as read; `created` stays.

        It then lives `ttl` seconds more, or with None as long as it had left. Raises
        `Conflict` when it was changed, `RecordGone` when it expired or was deleted.
        """
        ...

    def keep_alive(self, record: Record, ttl: float) -> Record:
        """Let it live `ttl` seconds from now; wakes nobody.

        `ttl` is the one it was written with. Raises `RecordGone` if it has expired, and
        `Conflict` if somebody else changed it. etcd v3 renews the lease it was written
        on, and sees neither a deletion nor a change: `list` tells.
        """
        ...

    def delete(self, record: Record) -> None:
        """Delete it if it is still as read; nothing happens if it is gone.

        Raises `Conflict` when it was changed since.
        """
        ...

    def list(self, prefix: str) -> Snapshot:
        """Return the live records, ordered by `created`; never a stale answer."""
        ...

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        """Block until something under `prefix` changed since the snapshot was taken.

        With `gone` only until one of its records went. A hint: it may return early, so
        callers list again; it returns at the latest after `timeout` seconds. Raises
        `Stopped` at once when the stop is requested.
        """
        ...

    def prepare(self, ttl: float) -> None:
        """Do ahead what the next `update` with this ttl would have to do first."""
        ...

    def time_left(self, record: Record) -> float:
        """Return the seconds the record has left, 0 when it is gone."""
        ...

    def local_address(self) -> str:
        """Return the address of this machine as the store would see it."""
        ...

    def close(self) -> None:
        """Give back what no record needs; never raises."""
        ...


def open_store(
    url: str | None, stop: Stop, environ: Mapping[str, str] = os.environ
) -> Store:
    """Open the store that the URL names, or the default; no request is sent yet.

    Raises `ConfigError`.
    """
    if url is None:
        try:
            refuse_unread(environ)
            return open_store(default_url(environ), stop, environ)
        except ConfigError as error:
            raise ConfigError(f"from the ETCDCTL_ variables: {error}") from None
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from service_monitor.stores.sqlite import SqliteStore

        return SqliteStore(_path(url), stop)
    if scheme == "dynamodb":
        from service_monitor.stores.aws import parse_place
        from service_monitor.stores.dynamodb import DynamoStore

        return DynamoStore(parse_place(url), stop)
    if scheme in ("etcd", "etcds", "etcd2", "etcd2s"):
        refuse_quoted(environ)
        endpoints, access = parse_endpoints(url, environ)
        if scheme.startswith("etcd2"):
            from service_monitor.stores.etcd2 import Etcd2Store

            return Etcd2Store(endpoints, access, stop)
        from service_monitor.stores.etcd3 import Etcd3Store

        return Etcd3Store(endpoints, access, stop)
    raise ConfigError(
        f"unknown store {quoted(mask_url(url))}: use etcd://HOST:2379, etcds://, "
        "etcd2://, etcd2s://, dynamodb://TABLE or sqlite:///DIRECTORY/FILE.db"
    )


def prepare_store(
    url: str | None, stop: Stop, *, dry_run: bool = False
) -> Sequence[str]:
    """Make what the store needs before its first use; return what that was.

    With `dry_run` only say it. Raises `ConfigError` and `StoreError`.
    """
    if url is not None and url.lower().startswith("dynamodb:"):
        from service_monitor.stores.dynamodb_table import init_table

        return init_table(url, stop, dry_run=dry_run)
    open_store(url, stop).close()  # reads the URL, and sends nothing
    return ()


def _path(url: str) -> str:
    match = re.fullmatch("sqlite://(/[^?#]+)", url, re.IGNORECASE)
    try:
        path = unescape(match[1]) if match else ""
    except ValueError as error:
        raise ConfigError(f"store {quoted(mask_url(url))} {error}") from None
    if not path.isprintable() or path.endswith("/") or not match:
        raise ConfigError(
            f"store {quoted(mask_url(url))}: write sqlite:///DIRECTORY/FILE.db, there "
            "%3F for ? and %23 for #"
        )
    if os.path.isdir(path):
        raise ConfigError(f"store {quoted(url)}: that is a directory")
    if not os.path.isdir(directory := os.path.dirname(path)):
        raise ConfigError(
            f"store {quoted(url)}: there is no directory {quoted(directory)}: make it, "
            "or mount it first"
        )
    return path

"""The way from a URL to a store: each is imported only when its URL is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.net.urls import mask_url
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.text import quoted


class StorePlace(Protocol):
    """Which store, and where: all that its URL and the environment say of it."""

    def open(self, bounds: Bounds, call_timeout: float) -> Store:
        """Open it; see `open_store`."""
        ...

    def prepare(self, bounds: Bounds, *, dry_run: bool) -> Sequence[str]:
        """Make what it needs; see `prepare_store`."""
        ...


def parse_store(url: str | None, environ: Mapping[str, str] = os.environ) -> StorePlace:
    """Read the URL of a store, or without one find the default; sends nothing.

    Reads the files that an etcd URL names: certificates, a password. Raises
    `ConfigError`, which shows no password, and `LocalLack`.
    """
    if url is None:
        from service_monitor.stores.etcd.default import default_url
        from service_monitor.stores.etcd.etcdctl import refuse_unread

        try:
            refuse_unread(environ)
            return parse_store(default_url(environ), environ)
        except ConfigError as error:
            raise ConfigError(f"from the ETCDCTL_ variables: {error}") from None
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from service_monitor.stores.sqlite.place import parse_sqlite

        return parse_sqlite(url)
    if scheme == "dynamodb":
        from service_monitor.stores.dynamodb.place import parse_dynamodb

        return parse_dynamodb(url)
    if scheme in ("etcd", "etcds", "etcd2", "etcd2s"):
        from service_monitor.stores.etcd.etcdctl import refuse_quoted
        from service_monitor.stores.etcd.place import parse_etcd

        refuse_quoted(environ)
        return parse_etcd(url, environ)
    raise ConfigError(
        f"unknown store {quoted(mask_url(url))}: use etcd://HOST:2379, etcds://, "
        "etcd2://, etcd2s://, dynamodb://TABLE or sqlite:///DIRECTORY/FILE.db"
    )


def open_store(
    place: StorePlace, bounds: Bounds, call_timeout: float = CALL_TIMEOUT
) -> Store:
    """Open a store; no request is sent yet.

    `call_timeout` are the seconds for each of its primitives. Raises `ConfigError` if a
    library or a setting of its own is missing, and `LocalLack` if this machine cannot
    tell what it needs.
    """
    return place.open(bounds, call_timeout)


def prepare_store(
    place: StorePlace, bounds: Bounds, *, dry_run: bool = False
) -> Sequence[str]:
    """Make what the store needs before its first use; return what that was.

    With `dry_run` only say it. Blocks until AWS has a table ready, up to 2 minutes.
    Raises `ConfigError`, `StoreError`, `LocalLack` and `Stopped`.
    """
    return place.prepare(bounds, dry_run=dry_run)

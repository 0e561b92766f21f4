"""The way from a URL to a store: each is imported only when its URL is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.net.urls import mask_url
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.stores.dynamodb.place import (
    DynamoPlace,
    parse_dynamodb,
    require_boto3,
)
from service_monitor.stores.etcd.default import default_url
from service_monitor.stores.etcd.etcdctl import refuse_quoted, refuse_unread
from service_monitor.stores.etcd.place import EtcdPlace, parse_etcd
from service_monitor.stores.sqlite.place import SqlitePlace, parse_sqlite
from service_monitor.text import quoted

StorePlace = EtcdPlace | DynamoPlace | SqlitePlace
"""Which store, and where: all that its URL and the environment say of it."""


def parse_store(url: str | None, environ: Mapping[str, str] = os.environ) -> StorePlace:
    """Read the URL of a store, or without one find the default; sends nothing.

    Reads the files that an etcd URL names: certificates, a password. Raises
    `ConfigError`, which shows no password, and `LocalLack`.
    """
    if url is None:
        try:
            refuse_unread(environ)
            return parse_store(default_url(environ), environ)
        except ConfigError as error:
            raise ConfigError(f"from the ETCDCTL_ variables: {error}") from None
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        return parse_sqlite(url)
    if scheme == "dynamodb":
        return parse_dynamodb(url)
    if scheme in ("etcd", "etcds", "etcd2", "etcd2s"):
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
    match place:
        case SqlitePlace():
            from service_monitor.stores.sqlite.store import SqliteStore

            return SqliteStore(place.path, bounds, call_timeout=call_timeout)
        case DynamoPlace():
            require_boto3()
            from service_monitor.stores.dynamodb.store import DynamoStore

            return DynamoStore(place, bounds, call_timeout)
        case EtcdPlace(version=2):
            from service_monitor.stores.etcd.v2 import Etcd2Store

            return Etcd2Store(place.endpoints, place.access, bounds, call_timeout)
        case EtcdPlace():
            from service_monitor.stores.etcd.v3 import Etcd3Store

            return Etcd3Store(place.endpoints, place.access, bounds, call_timeout)


def prepare_store(
    place: StorePlace, bounds: Bounds, *, dry_run: bool = False
) -> Sequence[str]:
    """Make what the store needs before its first use; return what that was.

    With `dry_run` only say it. Blocks until AWS has a table ready, up to 2 minutes.
    Raises `ConfigError`, `StoreError`, `LocalLack` and `Stopped`.
    """
    if isinstance(place, DynamoPlace):
        require_boto3()
        from service_monitor.stores.dynamodb.table import init_table

        return init_table(place, bounds, dry_run=dry_run)
    open_store(place, bounds).close()  # sends nothing
    return ()

"""The way from a URL to a store: each is imported only when its URL is used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.net.escapes import unescape
from service_monitor.net.urls import mask_url
from service_monitor.stores.base import Store
from service_monitor.stores.etcd.endpoints import default_url, parse_endpoints
from service_monitor.stores.etcd.etcdctl import refuse_quoted, refuse_unread
from service_monitor.text import quoted


def open_store(
    url: str | None, bounds: Bounds, environ: Mapping[str, str] = os.environ
) -> Store:
    """Open the store that the URL names, or the default; no request is sent yet.

    Raises `ConfigError`.
    """
    if url is None:
        try:
            refuse_unread(environ)
            return open_store(default_url(environ), bounds, environ)
        except ConfigError as error:
            raise ConfigError(f"from the ETCDCTL_ variables: {error}") from None
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from service_monitor.stores.sqlite.store import SqliteStore

        return SqliteStore(_path(url), bounds)
    if scheme == "dynamodb":
        from service_monitor.stores.dynamodb.aws import parse_place
        from service_monitor.stores.dynamodb.store import DynamoStore

        return DynamoStore(parse_place(url), bounds)
    if scheme in ("etcd", "etcds", "etcd2", "etcd2s"):
        refuse_quoted(environ)
        endpoints, access = parse_endpoints(url, environ)
        if scheme.startswith("etcd2"):
            from service_monitor.stores.etcd.v2 import Etcd2Store

            return Etcd2Store(endpoints, access, bounds)
        from service_monitor.stores.etcd.v3 import Etcd3Store

        return Etcd3Store(endpoints, access, bounds)
    raise ConfigError(
        f"unknown store {quoted(mask_url(url))}: use etcd://HOST:2379, etcds://, "
        "etcd2://, etcd2s://, dynamodb://TABLE or sqlite:///DIRECTORY/FILE.db"
    )


def prepare_store(
    url: str | None, bounds: Bounds, *, dry_run: bool = False
) -> Sequence[str]:
    """Make what the store needs before its first use; return what that was.

    With `dry_run` only say it. Raises `ConfigError` and `StoreError`.
    """
    if url is not None and url.lower().startswith("dynamodb:"):
        from service_monitor.stores.dynamodb.table import init_table

        return init_table(url, bounds, dry_run=dry_run)
    open_store(url, bounds).close()  # reads the URL, and sends nothing
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

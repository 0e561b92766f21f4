"""Stores opened by their URL, as a command opens them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from service_monitor.net.calls import Bounds
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.stores.dynamodb.place import parse_dynamodb
from service_monitor.stores.dynamodb.table import LOOK, init_table
from service_monitor.stores.opening import open_store, parse_store


def open_url(
    url: str | None,
    bounds: Bounds | None = None,
    environ: Mapping[str, str] = os.environ,
    call_timeout: float = CALL_TIMEOUT,
) -> Store:
    """Open the store that a URL names, or the default."""
    return open_store(parse_store(url, environ), bounds or Bounds(), call_timeout)


def init_url(
    url: str,
    bounds: Bounds | None = None,
    look: float = LOOK,
    call_timeout: float = CALL_TIMEOUT,
) -> list[str]:
    """Make the table of a URL."""
    place = parse_dynamodb(url)
    return init_table(place, bounds or Bounds(), look=look, call_timeout=call_timeout)

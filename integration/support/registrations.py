"""Publish a service's state, and read what the store then says."""

from __future__ import annotations

import json
from typing import Any

from service_monitor.recipes.health import Health
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.stores.sqlite.store import SqliteStore

UP, DOWN = Health(up=True, reason="200 OK"), Health(reason="connection refused")


def publisher(store: Any, name: str = "a", **settings: Any) -> Publisher:
    service = Service("ES", name, f"host-{name}", **settings)
    return Publisher(store, service, vouch=lambda: True)


def said(store: SqliteStore, name: str = "a") -> dict[str, Any]:
    (record,) = store.list(f"es/hosts/{name}").records
    return dict(json.loads(record.value))

"""Write what a label remembers, as a member's own `watch` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service_monitor.recipes.member import Event, Member
from service_monitor.records import Record, member_key
from service_monitor.stores.base import Store

Rows = list[dict[str, Any]]
"""As in the JSON of `status`."""

SINCE = "2026-01-02T03:04:05Z"
EVENTS = (
    Event("2026-01-02T03:00:00Z", "granted", "", 61.0),
    Event(SINCE, "up", "200 OK", 12.5),
)


def remembered(name: str, state: str = "up", **more: Any) -> str:
    """Give the record of a member that nothing has been heard of since SINCE."""
    fields = {"host": f"host-{name}", "since": SINCE, "reason": "200 OK"} | more
    return Member(service_id=name, state=state, **fields).to_json()  # type: ignore[arg-type]


def ephemeral(status: Mapping[str, Rows]) -> dict[str, Rows]:
    """Give what a status says of records that lapse: not of members that are gone."""
    services = [each for each in status["services"] if each["state"] != "gone"]
    return {**status, "services": services}


def remember(
    store: Store, name: str, state: str = "up", label: str = "es", **more: Any
) -> Record:
    value = remembered(name, state, **more)
    return store.create(member_key(label, name), value, None)

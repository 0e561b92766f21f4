"""What a label remembers of a service id, dead or alive, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from service_monitor.net.addresses import is_host
from service_monitor.records import json_object, with_others
from service_monitor.timing import timestamp

SCHEMA = 1
"""The version of the JSON that this release writes."""
MOST_EVENTS = 20
"""How many events are kept; the oldest go first."""
_STATES = ("up", "down", "stopped")


@dataclass(frozen=True)
class Event:
    """Something that happened to a member: when, what, why, and how long it took.

    `at` is a wall clock's time in RFC 3339, for people only. `seconds` led to it, by
    the clock of that machine: in the queue before "granted", in the start before "up",
    up before "down". `others` are the fields that this release does not know.
    """

    at: str
    event: str
    """queued, granted, up, down, lost, failed, released or stopped; a newer release may
    write others."""
    reason: str = ""
    seconds: float | None = None
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """A service id that was ever up, as it was last known.

    Its own `watch` or `run` writes it at a change, and nobody else does. Whether it
    lives says its registration. `others` are the fields that this release does not
    know: they are kept.
    """

    service_id: str
    host: str
    state: Literal["up", "down", "stopped"]
    reason: str = ""
    since: str = field(default_factory=timestamp)
    port: int | None = None
    info: dict[str, Any] = field(default_factory=dict)
    rank: str | None = None
    events: tuple[Event, ...] = ()
    """The newest last."""
    schema: int = SCHEMA
    others: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write what there is; a field that is None or empty is left out."""
        given = asdict(self)
        others = given.pop("others")
        given["events"] = [
            each.pop("others") | _without_empty(each) for each in given["events"]
        ]
        return json.dumps(others | _without_empty(given), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a member's record; None for what is not one."""
        given = with_others(cls, json_object(text))
        given["events"] = _read_events(given.get("events", []))
        if not _is_member(given):
            return None
        return cls(**given)


def _without_empty(fields_: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in fields_.items() if v not in (None, "", [], {}, ())}


def _read_events(listed: object) -> tuple[Event, ...]:
    """Read the events; what is none is left aside."""
    if not isinstance(listed, list):
        return ()
    found = [each for each in listed if isinstance(each, dict) and _is_event(each)]
    return tuple(Event(**with_others(Event, each)) for each in found)


def _is_event(each: dict[str, Any]) -> bool:
    texts = each.get("at"), each.get("event"), each.get("reason", "")
    seconds = each.get("seconds")
    timed = seconds is None or type(seconds) in (int, float)
    return timed and all(isinstance(text, str) for text in texts)


def _is_member(given: dict[str, Any]) -> bool:
    """Tell whether each field has a value that it can have."""
    texts = [given.get(name) for name in ("service_id", "host")]
    texts += [given.get(name, "") for name in ("reason", "since", "rank")]
    port, schema = given.get("port"), given.get("schema")
    return (
        all(isinstance(text, str) for text in texts)
        and is_host(str(given["host"]))
        and given.get("state") in _STATES
        and isinstance(given.get("info", {}), dict)
        and (port is None or (type(port) is int and 0 < port < 65536))
        and type(schema) is int
        and schema >= 1
    )

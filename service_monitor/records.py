"""What the store holds: plain values, and the JSON that other tools may read."""

from __future__ import annotations

import json
import math
import re
import secrets
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Literal, Self

from service_monitor.timing import timestamp

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""A label or service id: it becomes part of a key, so nothing else may get through."""


@dataclass(frozen=True)
class Record:
    """One key of the store as it was read.

    `created` orders all records of a store and is never used twice; `version` grows
    with every change of the value. `handle` is the store's own (etcd v3: the lease id).
    """

    key: str
    value: str
    created: int
    version: int
    handle: Any = None


@dataclass(frozen=True)
class Snapshot:
    """The live records under one prefix, by `created`; `cursor` is the store's own."""

    records: tuple[Record, ...]
    cursor: Any = None


def new_nonce() -> str:
    """Return a random text: it tells what this process wrote from all other writes."""
    return secrets.token_hex(8)


def nonce_of(value: str) -> str | None:
    """Return the nonce inside a record's value, None if it has none."""
    nonce = json_object(value).get("nonce")
    return nonce if isinstance(nonce, str) else None


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty one for anything else, as others may write."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or too deep a nesting
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class _Json:
    """A frozen dataclass kept as a JSON object with stable field names."""

    def to_json(self) -> str:
        """Write what there is; a field that is None is left out."""
        given = {
            name: value for name, value in asdict(self).items() if value is not None
        }
        return json.dumps(given, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a record; None for what is not one.

        Unknown fields are left aside.
        """
        value, known = json_object(text), fields(cls)
        if any(each.name not in value for each in known if _is_required(each)):
            return None
        given = {each.name: value[each.name] for each in known if each.name in value}
        record = cls(**given)
        return record if record._valid() else None

    def _valid(self) -> bool:
        """Tell whether each field has a value that it can have."""
        raise NotImplementedError


def with_others(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of `value` as fields of a dataclass, the rest as `others`.

    So a release that writes the record again keeps what only a newer one knows.
    """
    known = {each.name for each in fields(kind)} - {"others"}
    given = {name: each for name, each in value.items() if name in known}
    others = {name: each for name, each in value.items() if name not in known}
    return given | {"others": others}


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


@dataclass(frozen=True)
class Ticket(_Json):
    """A place in the queue, and once it is "held" the lease itself.

    `lease_timeout` is in seconds; `since` is a wall clock's, for people only. `found`
    is "once" where it waits for who has claimed to found the cluster.
    """

    service_id: str
    host: str
    state: Literal["waiting", "held"]
    nonce: str
    lease_timeout: float
    slots: int = 1
    since: str = field(default_factory=timestamp)
    found: str | None = None

    @property
    def held(self) -> bool:
        """Tell whether the ticket is the lease."""
        return self.state == "held"

    def _valid(self) -> bool:
        texts = (self.service_id, self.host, self.nonce, self.since)
        return (
            all(isinstance(text, str) for text in texts)
            and self.state in ("waiting", "held")
            and type(self.lease_timeout) in (int, float)
            and 0 < self.lease_timeout < math.inf
            and type(self.slots) is int
            and self.slots >= 1
        )


@dataclass(frozen=True)
class Registration(_Json):
    """What `watch` and `run` publish about their service.

    `reason` is what the last probe that counted said; `since` is a wall clock's, for
    people only.
    """

    service_id: str
    host: str
    state: Literal["up", "down"]
    reason: str
    nonce: str
    info: dict[str, Any] = field(default_factory=dict)
    since: str = field(default_factory=timestamp)
    port: int | None = None

    @property
    def up(self) -> bool:
        """Tell whether the last reported state is "up"."""
        return self.state == "up"

    def _valid(self) -> bool:
        texts = (self.service_id, self.host, self.reason, self.nonce, self.since)
        return (
            all(isinstance(text, str) for text in texts)
            and self.state in ("up", "down")
            and isinstance(self.info, dict)
            and (
                self.port is None or (type(self.port) is int and 0 < self.port < 65536)
            )
        )


def label_prefix(label: str) -> str:
    """Return the prefix of all records of a label; it is compared without case."""
    return f"{label.lower()}/"


def lease_prefix(label: str) -> str:
    """Return the prefix of a label's tickets; labels are compared without case."""
    return f"{label_prefix(label)}lease/"


def hosts_prefix(label: str) -> str:
    """Return the prefix of a label's registrations."""
    return f"{label_prefix(label)}hosts/"


def members_prefix(label: str) -> str:
    """Return the prefix of a label's members."""
    return f"{label_prefix(label)}members/"


def ticket_key(label: str, service_id: str) -> str:
    """Return the key of a service id's ticket."""
    return lease_prefix(label) + service_id


def registration_key(label: str, service_id: str) -> str:
    """Return the key of a service id's registration."""
    return hosts_prefix(label) + service_id


def member_key(label: str, service_id: str) -> str:
    """Return the key of what is remembered of a service id."""
    return members_prefix(label) + service_id


def key_parts(key: str) -> tuple[str, str, str]:
    """Return a key's label, its kind ("lease", "hosts", "members") and its service id.

    A label's founder has the kind "founder", and no service id in its key. What is
    missing in a key that is not ours is empty, from the left.
    """
    owner, _, last = key.rpartition("/")
    if last == "founder" and "/" not in owner:
        return owner, last, ""
    where, _, service_id = key.rpartition("/")
    label, _, kind = where.rpartition("/")
    return label, kind, service_id

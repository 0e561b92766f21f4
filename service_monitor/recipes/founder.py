"""Who founded a label, or is about to: the record, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from service_monitor.records import json_object, label_prefix, new_nonce, with_others
from service_monitor.timing import timestamp

SCHEMA = 1
"""The version of the JSON that this release writes."""


def founder_key(label: str) -> str:
    """Return the key of a label's founder; labels are compared without case."""
    return f"{label_prefix(label)}founder"


@dataclass(frozen=True)
class Founder:
    """The claim of a service id to found its cluster, or that the cluster is founded.

    It is durable. `since` is when it was written, by a wall clock, for people only.
    `reason` says how it is known that the cluster is founded. `others` are the fields
    that this release does not know: they are kept.
    """

    service_id: str
    host: str
    state: Literal["claimed", "founded"]
    reason: str = ""
    nonce: str = field(default_factory=new_nonce)
    since: str = field(default_factory=timestamp)
    schema: int = SCHEMA
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def founded(self) -> bool:
        """Tell whether the cluster is there, and nobody may found it again."""
        return self.state == "founded"

    def to_json(self) -> str:
        """Write what there is; an empty field is left out."""
        given = asdict(self)
        others = given.pop("others")
        known = {name: value for name, value in given.items() if value != ""}
        return json.dumps(others | known, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a founder's record; None for what is not one."""
        given = with_others(cls, json_object(text))
        needed = {each.name for each in fields(cls)} - {"others", "reason"}
        texts = [given.get(name, "") for name in {*needed, "reason"} - {"schema"}]
        schema = given.get("schema")
        if (
            not needed <= given.keys()
            or not all(isinstance(text, str) for text in texts)
            or given["state"] not in ("claimed", "founded")
            or type(schema) is not int
            or schema < 1
        ):
            return None
        return cls(**given)

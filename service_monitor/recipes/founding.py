"""Who may found a cluster: decided from one snapshot of its label.

Rules:
1. Nobody founds a cluster that was founded.
2. Who has claimed to found it, and nobody else, may found it until it has: killed in
   its first start it may have written a cluster to its disk.
3. A label without a claim is claimed by the first whose turn comes, unless somebody is
   up or remembered there: then it was founded, by an older release or before the store
   lost its data. That is written down.
4. Where the record cannot be read nobody founds.

No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service_monitor.recipes.founder import Founder, founder_key
from service_monitor.records import (
    Record,
    Registration,
    Snapshot,
    key_parts,
    registration_key,
    ticket_key,
)
from service_monitor.text import printable

_NOTHING = Snapshot(())


@dataclass(frozen=True)
class Picture:
    """What a snapshot of a label says about who founds its cluster.

    `record` is the founder's, and `founder` what it says; None where that is not there,
    or cannot be read. `is_up` and `starts` tell of the founder: whether it is
    registered as up; and whether it is so as down, or queues, or holds the lease.
    """

    record: Record | None = None
    founder: Founder | None = None
    is_up: bool = False
    starts: bool = False
    up: tuple[str, ...] = ()
    """Other service ids that are registered as up."""
    members: tuple[str, ...] = ()
    """Service ids that are remembered."""


@dataclass(frozen=True)
class Decision:
    """What a start is to do.

    found: it may, if nobody is up. claim: write the claim, then found. join: the
    cluster was founded. learn: as join, and write so, for the reason `why`. wait: until
    another one has founded, as `why` says.
    """

    act: Literal["found", "claim", "join", "learn", "wait"]
    why: str = ""
    ahead: bool = False
    """Whether it goes past those in the queue that wait for it to found."""
    snapshot: Snapshot = _NOTHING
    """The founder's record as it was looked at: what to wait for a change of."""


ANYBODY = Decision("found")
"""With --found=empty: whoever finds nobody up."""


def read_picture(snapshot: Snapshot, label: str, service_id: str) -> Picture:
    """Read a snapshot of the label as this service id sees it."""
    by_key = {record.key: record for record in snapshot.records}
    record = by_key.get(founder_key(label))
    founder = Founder.from_json(record.value) if record else None
    name = founder.service_id if founder else ""
    at = by_key.get(registration_key(label, name))
    registered = Registration.from_json(at.value) if at else None
    up, members = [], []
    for each in snapshot.records:
        _, kind, owner = key_parts(each.key)
        if kind == "members":
            members.append(owner)
        elif kind == "hosts" and owner != service_id:
            found = Registration.from_json(each.value)
            up += [owner] if found and found.up else []
    return Picture(
        record,
        founder,
        is_up=registered is not None and registered.up,
        starts=registered is not None or ticket_key(label, name) in by_key,
        up=tuple(up),
        members=tuple(members),
    )


def decide(picture: Picture, label: str, service_id: str) -> Decision:
    """Decide what a start of this service id is to do."""
    founder = picture.founder
    if picture.record is None:
        evidence = _evidence(picture)
        return Decision("learn", evidence) if evidence else Decision("claim")
    if founder is None:
        return Decision("wait", _unreadable(label))
    if founder.founded:
        return Decision("join")
    if founder.service_id == service_id:
        return Decision("found", ahead=True)
    return Decision("wait", _awaited(picture, founder, label))


def _evidence(picture: Picture) -> str:
    """Say what shows that the cluster was founded; "" if nothing does."""
    for ids, how in (picture.up, "up"), (picture.members, "remembered"):
        if ids:
            return f"{_some(ids)} {'are' if len(ids) > 1 else 'is'} {how}"
    return ""


def _some(ids: tuple[str, ...]) -> str:
    shown = ", ".join(printable(each) for each in ids[:3])
    return shown if len(ids) <= 3 else f"{shown} and {len(ids) - 3} more"


def _awaited(picture: Picture, founder: Founder, label: str) -> str:
    """Say whom the others wait for, since when, and what would end that."""
    name, since = printable(founder.service_id), printable(founder.since)
    if picture.is_up:
        return (
            f"{name} founds the cluster since {since}: it is up, and its --settled-url "
            "has not said yes yet; it is told by its run or watch with --found=once"
        )
    if picture.starts:
        return f"{name} founds the cluster since {since}: it is not up yet"
    return (
        f"{name} began to found at {since} and has not come up; bring it back, or "
        f"`reset --label={label}` after emptying its disk"
    )


def _unreadable(label: str) -> str:
    return (
        f"what the store holds as {founder_key(label)} cannot be read, so nobody "
        "founds: is it of a newer release? It goes with `reset`"
    )

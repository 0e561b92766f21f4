"""The members of a label, dead or alive, as one snapshot shows them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from service_monitor.recipes.discovery import Search, in_order, is_joinable, natural
from service_monitor.recipes.member import Event, Member
from service_monitor.records import (
    NAME,
    Record,
    Registration,
    Ticket,
    key_parts,
    label_prefix,
)

log = logging.getLogger(__name__)

State = Literal["up", "down", "gone"]
STATES: tuple[State, ...] = ("up", "down", "gone")
UNREADABLE = "its registration cannot be read"


class _Key(NamedTuple):
    label: str
    service_id: str


@dataclass(frozen=True)
class Remembered:
    """A service id that a label knows: registered now, or remembered.

    Its live registration says whether it is up or down; without one it is gone. Of one
    that is gone, `since`, `reason`, host, port and info are the last that were known.
    """

    label: str
    service_id: str
    host: str
    state: State
    since: str
    """A wall clock's, for people only. Of one that is gone: when `last_state` began."""
    reason: str = ""
    port: int | None = None
    info: dict[str, Any] = field(default_factory=dict)
    member: Member | None = None
    """What is remembered; None where it was never up, or runs an older release."""
    ticket: Ticket | None = None
    """Its place in the queue, or its lease."""

    @property
    def last_state(self) -> str | None:
        """Return the state that one that is gone was in last, None for all others."""
        gone = self.state == "gone"
        return self.member.state if gone and self.member else None

    @property
    def events(self) -> tuple[Event, ...]:
        """Return what is remembered of it, the newest last."""
        return self.member.events if self.member else ()


@dataclass(frozen=True)
class Members:
    """All service ids of a snapshot, by label and in natural order."""

    entries: tuple[Remembered, ...]
    strangers: tuple[str, ...] = ()
    """Keys of members that cannot be read, or name no host to connect to."""
    placeless: tuple[str, ...] = ()
    """Keys of registrations that name no host to connect to."""

    def hosts(self, states: Collection[str], port: int | None = None) -> list[str]:
        """Return the hosts of those in one of these states, as `up_hosts` does."""
        wanted = (each for each in self.entries if each.state in states)
        return in_order((each.host, each.port or port) for each in wanted)


def read_members(records: Iterable[Record]) -> Members:
    """Tell from the live records of one or more labels who is up, down or gone.

    A registration counts, whoever is remembered. One that cannot be read belongs to
    somebody who lives: a member with such a one is down, and not gone. No I/O.
    """
    kinds: dict[str, dict[_Key, Record]] = {"hosts": {}, "members": {}, "lease": {}}
    for record in records:
        label, kind, service_id = key_parts(record.key)
        if kind in kinds:
            kinds[kind][_Key(label, service_id)] = record
    members = {key: _member(key, each) for key, each in kinds["members"].items()}
    tickets = {key: Ticket.from_json(r.value) for key, r in kinds["lease"].items()}
    found: dict[_Key, Remembered] = {}
    placeless = []
    for key, record in kinds["hosts"].items():
        registered = Registration.from_json(record.value)
        if registered and is_joinable(registered.host):
            found[key] = _alive(key, registered, members.get(key), tickets.get(key))
        elif registered:
            placeless.append(record.key)
    for key, member in members.items():
        if member and key not in found:
            unread = key in kinds["hosts"]
            found[key] = _not_seen(key, member, tickets.get(key), unread)
    entries = sorted(found.values(), key=lambda e: (e.label, natural(e.service_id)))
    foreign = (r.key for key, r in kinds["members"].items() if not members[key])
    return Members(tuple(entries), tuple(foreign), tuple(placeless))


def _member(key: _Key, record: Record) -> Member | None:
    """Read what is remembered of this service id; None for what is no such thing."""
    member = Member.from_json(record.value)
    ours = member and member.service_id == key.service_id and is_joinable(member.host)
    return member if ours and NAME.fullmatch(key.service_id) else None


def _alive(
    key: _Key, registered: Registration, member: Member | None, ticket: Ticket | None
) -> Remembered:
    return Remembered(
        key.label,
        registered.service_id,
        registered.host,
        registered.state,
        registered.since,
        registered.reason,
        registered.port,
        registered.info,
        member,
        ticket,
    )


def _not_seen(
    key: _Key, member: Member, ticket: Ticket | None, unread: bool
) -> Remembered:
    return Remembered(
        key.label,
        key.service_id,
        member.host,
        "down" if unread else "gone",
        member.since,
        UNREADABLE if unread else _why_gone(member) + _on_its_way(ticket),
        member.port,
        member.info,
        member,
        ticket,
    )


def _why_gone(member: Member) -> str:
    """Say how it went: nobody writes a last word for one that died."""
    if member.state == "stopped":
        went = "stopped"
    else:
        last = f"last known {member.state} since {member.since}"
        went = f"died or was cut off; {last}"
    return f"{went}: {member.reason}" if member.reason else went


def _on_its_way(ticket: Ticket | None) -> str:
    """Say that it comes back: a member that starts anew is not registered yet."""
    if ticket is None:
        return ""
    return "; starts now" if ticket.held else "; waits for its turn to start"


def warn_of_foreign(members: Members, warned: set[str] | None = None) -> None:
    """Warn of what was left aside: once a key for all calls that share `warned`."""
    known = set() if warned is None else warned
    for key in members.placeless:
        if key not in known:
            log.warning("%s names no valid host: left aside", key)
    for key in members.strangers:
        if key not in known:
            log.warning("%s is no member: left aside. To remove it: forget", key)
    known.update(members.placeless, members.strangers)


def search_in(states: Sequence[str], label: str, port: int | None = None) -> Search:
    """Return the search for the hosts of members in one of these states."""

    def find(records: Iterable[Record], warned: set[str]) -> list[str]:
        members = read_members(records)
        warn_of_foreign(members, warned)
        return members.hosts(states, port)

    said = states[0] if len(states) == 1 else "of any state"
    return Search(label_prefix(label), said, find)

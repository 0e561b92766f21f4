"""What is read from the store may have been written by anybody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service_monitor.records import Registration, Ticket, nonce_of

TICKET = {
    "service_id": "a",
    "host": "h",
    "state": "held",
    "nonce": "n",
    "lease_timeout": 240.0,
    "slots": 1,
    "since": "2026-01-01T00:00:00Z",
}


def test_fields_of_a_later_version_are_left_aside() -> None:
    """An upgrade of one node would make the others blind to its ticket."""
    ticket = Ticket.from_json(json.dumps(TICKET | {"colour": "blue"}))
    assert ticket is not None
    assert json.loads(ticket.to_json()) == TICKET


@pytest.mark.parametrize(
    "change",
    [
        {"state": "up"},
        {"lease_timeout": float("inf")},
        {"lease_timeout": float("nan")},
        {"lease_timeout": -1},
        {"lease_timeout": True},
        {"lease_timeout": "240"},
        {"slots": 0},
        {"slots": True},
        {"slots": 1.5},
        {"host": None},
        {"nonce": 7},
    ],
)
def test_a_ticket_with_an_impossible_field_is_none(change: dict[str, Any]) -> None:
    """One odd record would break each command that reads the label."""
    assert Ticket.from_json(json.dumps(TICKET | change)) is None


REGISTRATION = {
    "service_id": "a",
    "host": "h",
    "state": "up",
    "reason": "200 OK",
    "nonce": "n",
    "info": {},
    "since": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize("more", [{}, {"port": 1}, {"port": 65535}])
def test_a_registration_may_have_a_port(more: dict[str, Any]) -> None:
    """Nodes of the release before would vanish from `hosts`, or those after it."""
    found = Registration.from_json(json.dumps(REGISTRATION | more))
    assert found is not None
    assert found.port == more.get("port")
    assert json.loads(found.to_json()) == REGISTRATION | more


@pytest.mark.parametrize("port", [0, 65536, -1, "9200", True, 1.5, [1]])
def test_a_registration_with_an_impossible_port_is_none(port: Any) -> None:
    """`hosts` would print what nobody can connect to, or end in a traceback."""
    assert Registration.from_json(json.dumps(REGISTRATION | {"port": port})) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "{}", "[" * 200_000])
def test_what_is_no_record_is_none(text: str) -> None:
    """A key written by hand would stop every node's command with a traceback."""
    assert Ticket.from_json(text) is None
    assert Registration.from_json(text) is None
    assert nonce_of(text) is None


@pytest.mark.parametrize("name", sorted(TICKET.keys() - {"slots", "since"}))
def test_a_ticket_without_a_field_is_none(name: str) -> None:
    """A record of another tool would end each command with a traceback."""
    assert Ticket.from_json(json.dumps(TICKET | {name: None})) is None
    left = {field: value for field, value in TICKET.items() if field != name}
    assert Ticket.from_json(json.dumps(left)) is None


def test_a_mistake_of_ours_is_no_strange_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug in reading would make every ticket invisible, and all nodes the first."""

    def broken(ticket: Ticket) -> bool:
        raise AttributeError("a bug")

    monkeypatch.setattr(Ticket, "_valid", broken)
    with pytest.raises(AttributeError):
        Ticket.from_json(json.dumps(TICKET))

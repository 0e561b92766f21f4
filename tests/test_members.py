"""Who is up, down or gone, as one snapshot of a label shows it."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.support.commands import HANG
from integration.support.members import SINCE, remembered
from service_monitor.recipes.member import Event
from service_monitor.recipes.members import (
    UNREADABLE,
    Members,
    Remembered,
    read_members,
    warn_of_foreign,
)
from service_monitor.records import (
    Record,
    Registration,
    Ticket,
    member_key,
    registration_key,
    ticket_key,
)


def member(name: str, state: str = "up", label: str = "es", **more: Any) -> Record:
    return Record(member_key(label, name), remembered(name, state, **more), 1, 1)


def alive(name: str, state: str = "up", label: str = "es", **more: Any) -> Record:
    fields = {"host": f"host-{name}", "since": "now", "reason": "r", "nonce": "n"}
    value = Registration(service_id=name, state=state, **fields | more)  # type: ignore[arg-type]
    return Record(registration_key(label, name), value.to_json(), 1, 1)


def queued(name: str, state: Literal["waiting", "held"] = "waiting") -> Record:
    value = Ticket(name, f"host-{name}", state, "n", 60).to_json()
    return Record(ticket_key("es", name), value, 1, 1)


def only(*records: Record) -> Remembered:
    (entry,) = read_members(records).entries
    return entry


def test_who_lives_is_as_its_registration_says() -> None:
    """A node that came back would be shown as it was before."""
    entry = only(member("a", "stopped", rank="7"), alive("a", "down", port=9301))
    shown = entry.state, entry.since, entry.reason, entry.port
    assert shown == ("down", "now", "r", 9301)
    assert entry.last_state is None
    assert entry.member is not None
    assert entry.member.rank == "7"


def test_who_was_never_remembered_is_shown_all_the_same() -> None:
    """Nodes of an older release would vanish from `status`."""
    entry = only(alive("a", info={"rack": 1}))
    shown = entry.service_id, entry.host, entry.state, entry.info, entry.member
    assert shown == ("a", "host-a", "up", {"rack": 1}, None)
    assert entry.events == ()


def test_who_was_stopped_says_so() -> None:
    """Nobody could tell a node taken out on purpose from one that died."""
    entry = only(member("a", "stopped", reason="SIGTERM", port=1, info={"b": 1}))
    assert (entry.state, entry.last_state) == ("gone", "stopped")
    assert (entry.since, entry.reason) == (SINCE, "stopped: SIGTERM")
    assert (entry.host, entry.port, entry.info) == ("host-a", 1, {"b": 1})


def test_a_stop_without_a_reason_says_stopped() -> None:
    """The sentence would end in a colon."""
    assert only(member("a", "stopped", reason="")).reason == "stopped"


@pytest.mark.parametrize("state", ["up", "down"])
def test_who_died_says_what_was_last_known(state: str) -> None:
    """Nobody could tell since when a dead node is missing."""
    entry = only(member("a", state))
    assert (entry.state, entry.last_state, entry.since) == ("gone", state, SINCE)
    assert entry.reason == (
        f"died or was cut off; last known {state} since {SINCE}: 200 OK"
    )


def test_who_died_without_a_reason() -> None:
    """The sentence would end in a colon."""
    reason = only(member("a", reason="")).reason
    assert reason == f"died or was cut off; last known up since {SINCE}"


def test_the_place_in_the_queue_is_known() -> None:
    """Nobody could see that a member which is gone is on its way back."""
    stopped = member("a", "stopped", reason="SIGTERM")
    waiting, starting = (
        only(stopped, each) for each in (queued("a"), queued("a", "held"))
    )
    assert waiting.reason == "stopped: SIGTERM; waits for its turn to start"
    assert starting.reason == "stopped: SIGTERM; starts now"
    assert waiting.ticket is not None
    assert waiting.ticket.state == "waiting"
    assert only(stopped).ticket is None
    assert only(stopped, alive("a"), queued("a")).reason == "r"
    assert read_members([queued("a")]).entries == ()


@pytest.mark.parametrize("value", ["no JSON", "{}", '{"schema": 99}'])
def test_a_registration_that_cannot_be_read_is_alive(value: str) -> None:
    """A node of a later release would be taken for dead."""
    registration = Record(registration_key("es", "a"), value, 1, 1)
    entry = only(member("a"), registration)
    assert (entry.state, entry.reason) == ("down", UNREADABLE)
    assert read_members([registration]) == Members(())


def test_a_registration_without_a_place_is_alive() -> None:
    """A member would be gone whose registration lives."""
    entry = only(member("a"), alive("a", host="a,b"))
    assert (entry.state, entry.host) == ("down", "host-a")


def test_the_order_is_natural() -> None:
    """es-10 would stand before es-2, and the dead apart from the living."""
    records = [
        *(member("es-1", label="b"), member("es-10", label="a")),
        *(alive("es-3", label="a"), member("es-2", label="a")),
    ]
    entries = read_members(records).entries
    assert [(each.label, each.service_id) for each in entries] == [
        *(("a", "es-2"), ("a", "es-3"), ("a", "es-10"), ("b", "es-1"))
    ]


def test_each_label_has_its_own_members() -> None:
    """A node of another cluster would bring this one's back to life."""
    entries = read_members([member("x", label="a"), alive("x", label="b")]).entries
    assert [(each.label, each.state) for each in entries] == [
        ("a", "gone"),
        ("b", "up"),
    ]


def test_hosts_in_the_states_asked_for() -> None:
    """`hosts --state=gone` would print whom one could join, or one host twice."""
    records = [member("a"), member("b"), alive("b"), alive("c", "down")]
    records += [
        alive("d", host="host-a"),
        member("e", port=1),
        member("f", host="::1:2"),
    ]
    members = read_members(records)
    assert members.hosts(["gone"]) == ["::1:2", "host-a", "host-e:1"]
    assert members.hosts(["up"]) == ["host-a", "host-b"]
    assert members.hosts(["down"]) == ["host-c"]
    everybody = ["::1:2", "host-a", "host-b", "host-c", "host-e:1"]
    assert members.hosts(["up", "down", "gone"]) == everybody
    assert members.hosts(["gone"], 9) == ["[::1:2]:9", "host-a:9", "host-e:1"]


def changed(record: Record, **fields: Any) -> Record:
    value = json.dumps(json.loads(record.value) | fields)
    return Record(record.key, value, 1, 1)


FOREIGN = [
    Record("es/members/a", "no JSON", 1, 1),
    Record("es/members/a", "[]", 1, 1),
    Record("es/members/a", "[" * 100_000, 1, 1),
    Record("es/members/a", member("b").value, 1, 1),
    Record("es/members/a b", changed(member("a"), service_id="a b").value, 1, 1),
    changed(member("a"), state="gone"),
    changed(member("a"), state=["up"]),
    changed(member("a"), schema="1"),
    changed(member("a"), host="a,b"),
    changed(member("a"), host="0.0.0.0"),
    changed(member("a"), host=None),
]


@pytest.mark.parametrize("record", FOREIGN, ids=lambda r: r.value[:40])
def test_what_is_no_member_is_set_apart(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """One key that another tool wrote would break the view, or be told to COMMAND."""
    members = read_members([record, member("z")])
    assert [each.service_id for each in members.entries] == ["z"]
    assert members.strangers == (record.key,)
    warn_of_foreign(members)
    said = f"{record.key} is no member: left aside. To remove it: forget"
    assert caplog.messages == [said]


def test_each_key_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """`hosts --wait` would fill the log with one line a look."""
    members = read_members([FOREIGN[0], alive("b", host="a b")])
    assert members.placeless == ("es/hosts/b",)
    warned: set[str] = set()
    warn_of_foreign(members, warned)
    warn_of_foreign(members, warned)
    assert len(caplog.messages) == 2
    assert warned == {"es/members/a", "es/hosts/b"}


def test_other_keys_are_passed_over() -> None:
    """The founder of a label, or another tool's key, would be taken for a member."""
    others = [Record(key, "{}", 1, 1) for key in ("es/founder", "x", "", "a/b/c")]
    assert read_members(others) == Members(())


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), st.text())
def test_no_record_breaks_it(fields: dict[str, Any], name: str) -> None:
    """Whoever may write to the store could end every `status` by a traceback."""
    kinds = "members", "hosts", "lease"
    value = json.dumps(json.loads(member("a").value) | fields)
    read_members([Record(f"es/{kind}/{name}", value, 1, 1) for kind in kinds])


def test_a_thousand_members_are_read_in_no_time() -> None:
    """`status` of a large label would keep an operator waiting."""
    events = tuple(Event(SINCE, "down", "x" * 100, 1.5) for _ in range(20))
    records = [member(f"es-{n}", events=events) for n in range(1000)]
    began = time.process_time()
    assert len(read_members(records).entries) == 1000
    assert time.process_time() - began < HANG

"""The queue as one snapshot shows it."""

from __future__ import annotations

import pytest

from service_monitor.recipes.queue import Queue, describe, read_queue, warn_of_strangers
from service_monitor.records import Record, Snapshot, Ticket


def record(name: str, state: str, slots: int = 1, *, created: int = 1) -> Record:
    ticket = Ticket(name, f"host-{name}", state, "n", 240.0, slots)  # type: ignore[arg-type]
    return Record(f"es/lease/{name}", ticket.to_json(), created, created)


def queue(*tickets: tuple[str, str] | tuple[str, str, int]) -> Queue:
    found = [record(*given, created=n) for n, given in enumerate(tickets, 1)]
    return read_queue(Snapshot(tuple(found)))


MIXED = queue(("b", "waiting", 3), ("a", "held", 2), ("c", "waiting", 2))


def test_tickets_keep_the_order_in_which_they_were_created() -> None:
    """A later node would start before an earlier one."""
    assert [entry.ticket.service_id for entry in MIXED.entries] == ["b", "a", "c"]
    assert [entry.ticket.service_id for entry in MIXED.waiters] == ["b", "c"]
    assert [entry.ticket.service_id for entry in MIXED.holders] == ["a"]


def test_a_place_counts_among_waiters_alone() -> None:
    """The log would say "position 2" to the next in line."""
    assert [MIXED.position(f"es/lease/{name}") for name in "bc"] == [1, 2]
    for index, name in enumerate("bac"):
        found = MIXED.find(f"es/lease/{name}")
        assert found is not None
        assert (found[0], found[1].record.created) == (index, index + 1)
    assert MIXED.find("es/lease/d") is None


@pytest.mark.parametrize(
    ("slots", "smallest", "differ"),
    [((), 1, False), ((2,), 2, False), ((3, 3), 3, False), ((3, 1, 2), 1, True)],
)
def test_the_smallest_number_of_slots_counts(
    slots: tuple[int, ...], smallest: int, differ: bool
) -> None:
    """One node with another --slots would let two start where one may."""
    found = queue(*((f"n{i}", "waiting", each) for i, each in enumerate(slots)))
    assert (found.slots, found.slots_differ) == (smallest, differ)


def test_what_is_no_ticket_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log would have a line for each look, or say nothing of a foreign key."""
    odd = Record("es/lease/odd", "{}", 7, 7)
    found = read_queue(Snapshot((record("a", "held"), odd, record("b", "waiting"))))
    assert [entry.ticket.service_id for entry in found.entries] == ["a", "b"]
    assert found.strangers == ("es/lease/odd",)
    before: set[str] = set()
    for look in found, found, MIXED, found:
        warn_of_strangers(look, before)
    assert caplog.messages == ["es/lease/odd is not a ticket: left aside"] * 2
    assert {each.levelname for each in caplog.records} == {"WARNING"}


@pytest.mark.parametrize(
    ("tickets", "text"),
    [
        ([("a", "waiting")], "position 1, free but not taken yet"),
        ([("h", "held"), ("a", "waiting")], "position 1, held by h (host-h)"),
        (
            [
                *(("h", "held"), ("i", "held"), ("b", "waiting"), ("c", "waiting")),
                *(("a", "waiting"), ("d", "waiting")),
            ],
            "position 3, held by h (host-h), i (host-i), after b, c",
        ),
    ],
)
def test_a_wait_is_explained(tickets: list[tuple[str, str]], text: str) -> None:
    """An operator could not see for whom a node waits."""
    assert describe(queue(*tickets), "es/lease/a") == text

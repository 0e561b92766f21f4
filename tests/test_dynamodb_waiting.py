"""How often a waiter looks at a DynamoDB table, and what that costs."""

from __future__ import annotations

import re
from threading import Event

import pytest

from integration.support.documents import ROOT
from integration.support.dynamodb import size_of
from integration.support.stubbed_dynamodb import EPOCH, RECORD, StubbedService, item
from service_monitor.recipes.session import RENEWALS
from service_monitor.recipes.timings import TIMINGS
from service_monitor.records import Record, Snapshot, Ticket
from service_monitor.stores.dynamodb.store import FAST, SLOW, SLOWEST, interval

ENDS = "alive_until", "dead_after", "litter_after"


def queue(count: int) -> Snapshot:
    return Snapshot(tuple(Record(f"es/lease/{n}", "", n, n) for n in range(count)))


def test_who_is_next_looks_often_and_the_others_seldom() -> None:
    """A hand-over would take seconds, or a hundred waiters cost thousands of reads."""
    waits = [interval(f"es/lease/{n}", queue(100), 5.0) for n in range(99)]
    assert waits[:5] == [FAST, 2 * FAST, 4 * FAST, SLOW, SLOW]
    assert waits[-1] == SLOWEST
    assert sum(1 / wait for wait in waits if wait < 5) < 10


def test_a_hundred_waiters_read_what_is_documented() -> None:
    """The bill, and the throttling, would not be what docs/dynamodb.md says."""
    snapshot = Snapshot(tuple(Record(f"es/lease/{n}", "", n, n) for n in range(101)))
    looks = lists = 0.0
    for place in range(1, 101):
        patience = TIMINGS.look_next if place == 1 else TIMINGS.look_later
        every = interval(f"es/lease/{place - 1}", snapshot, patience)
        looks += 1 / every if every < patience else 0
        lists += 1 / patience
    name = "ip-10-0-12-123.eu-central-1.compute.internal"
    ticket = Ticket(name, "10.0.12.123", "waiting", "0" * 16, 240.0)
    found = item(ticket.to_json()) | {"key": {"S": f"lease/{name}"}}
    found |= {name: {"N": f"{EPOCH}.000000"} for name in ENDS}
    units = -(-101 * size_of(found) // 4096)
    page = (ROOT / "docs/dynamodb.md").read_text()
    (row,) = re.findall(r"together, for a second \| (\d+) \| (\d+) \|", page)
    assert looks + units * lists == pytest.approx(int(row[0]), rel=0.1)
    assert int(row[1]) == 100 * RENEWALS / TIMINGS.waiter_ttl
    assert f"one query, {units} units" in page
    (told,) = re.findall(r"send (\d+) reads a second", page)
    assert looks + lists == pytest.approx(int(told), rel=0.1)


def test_waiting_for_a_whole_prefix_goes_by_the_patience() -> None:
    """With several slots the next in line would be as slow as `hosts --wait`."""
    assert interval("es/lease/", queue(3), 1.0) == FAST
    assert interval("es/hosts/", queue(3), 5.0) == 1.25
    assert interval("es/hosts/", queue(3), 60.0) == SLOW


def test_an_idle_watch_looks_twice_between_its_probes() -> None:
    """A thousand of them would cost what their looks do not need to."""
    assert interval("es/lease/a", Snapshot(()), 5.0) == 2.0
    assert interval("es/lease/a", Snapshot(()), 15.0) == 6.0
    assert interval("es/lease/a", Snapshot(()), 900.0) == SLOWEST


def test_what_gets_on_ahead_is_looked_at_more_often(
    dynamo: StubbedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has become the next in line would be as slow as the last."""
    pauses: list[float] = []
    real = dynamo.store._bounds.stop.wait

    def wait(seconds: float, waker: Event | None = None) -> None:
        if waker is None:
            pauses.append(seconds)
        else:  # of a call
            real(seconds, waker)

    monkeypatch.setattr(dynamo.store._bounds.stop, "wait", wait)
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    dynamo.finds(item(version=4))
    dynamo.finds(item("held", version=5))
    dynamo.finds(None)
    ahead = [Record(f"es/lease/{n}", "", n, n) for n in range(3)]
    since = Snapshot((*ahead, RECORD))
    dynamo.store.wait(RECORD.key, since, 60, gone=True)
    assert pauses == [SLOW, SLOW, FAST]

"""What a label remembers of a service id, and when it is written."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.support.fakes import Clock, FlakyStore, memory_store
from service_monitor import text
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.chronicle import PACE, Chronicle, fold, happened
from service_monitor.recipes.member import MOST_EVENTS, Event, Member
from service_monitor.recipes.publisher import Service
from service_monitor.records import Registration
from service_monitor.stores.sqlite.store import SqliteStore

KEY = "es/members/a"
SERVICE = Service("ES", "a", "host-a", info={"rack": "r1"}, port=9300)
NAMES = "queued", "granted", "up", "down", "lost", "failed", "released", "stopped"
EVENTS = st.builds(Event, st.text("012", min_size=1), st.sampled_from(NAMES), st.text())


def chronicle(store: Any, clock: Clock, service: Service = SERVICE) -> Chronicle:
    return Chronicle(store, service, clock)


def up(mine: Chronicle, reason: str = "200 OK") -> None:
    """Go up as a watcher does: it is written before it is published."""
    mine.turned(True, reason)
    mine.remember(True)


def stored(store: SqliteStore) -> Member:
    (record,) = store.list(KEY).records
    found = Member.from_json(record.value)
    assert found is not None
    return found


def told(store: SqliteStore) -> list[tuple[str, str, float | None]]:
    return [(e.event, e.reason, e.seconds) for e in stored(store).events]


@given(st.lists(EVENTS, max_size=60), st.lists(EVENTS, max_size=30))
def test_no_more_events_are_kept_than_fit(one: list[Event], two: list[Event]) -> None:
    """A thousand members would not fit into one answer of the store."""
    member = fold(fold(Member("a", "h", "up"), one), two)
    assert len(member.events) <= MOST_EVENTS
    assert member.events == (*one, *two)[-MOST_EVENTS:]


def test_the_history_goes_on_where_an_earlier_life_ended(
    memory: SqliteStore, clock: Clock
) -> None:
    """A restart would wipe out what led to it; a service id that moved, too."""
    first = chronicle(memory, clock)
    first.note("queued")
    clock.advance(3)
    first.note("granted", "token 7", 3)
    first.began()
    clock.advance(12.5)
    up(first)
    clock.advance(60)
    first.end("SIGTERM", withdrawn=True)
    second = chronicle(memory, clock, replace(SERVICE, host="host-b", port=None))
    up(second, "204 No Content")
    assert told(memory) == [
        ("queued", "", None),
        ("granted", "token 7", 3),
        ("up", "200 OK", 12.5),
        ("stopped", "SIGTERM", 60),
        ("up", "204 No Content", None),
    ]
    found = stored(memory)
    assert (found.state, found.reason, found.host) == ("up", "204 No Content", "host-b")
    assert found.since == found.events[-1].at
    assert (found.port, found.info) == (None, {"rack": "r1"})


def test_a_service_that_was_never_up_is_not_remembered(
    memory: SqliteStore, clock: Clock
) -> None:
    """An election would wait for a node that has never held any data."""
    mine = chronicle(memory, clock)
    mine.note("queued")
    mine.lost("not renewed in time")
    mine.keep_up()
    mine.ended_by("COMMAND ended with exit code 7")
    mine.end("", withdrawn=True)
    assert memory.list("").records == ()


def test_a_start_that_fails_is_remembered_of_one_that_was_up(
    memory: SqliteStore, clock: Clock
) -> None:
    """After a night of failed starts all that is known would be that it was up."""
    up(chronicle(memory, clock))
    mine = chronicle(memory, clock)
    mine.began()
    clock.advance(4)
    mine.lost("not renewed in time")
    mine.ended_by("COMMAND ended with exit code 7")
    mine.end("SIGTERM", withdrawn=True)
    assert stored(memory).state == "stopped"
    assert told(memory)[1:] == [
        ("lost", "not renewed in time", 4),
        ("failed", "COMMAND ended with exit code 7", 4),
    ]


@pytest.mark.parametrize("fault", ["request", "reply"])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", [0, 1])
def test_up_is_not_published_unless_it_is_remembered(
    memory: SqliteStore, clock: Clock, fault: str, earlier: bool, at: int
) -> None:
    """A node would let the next one start, and nobody would know of it if it died."""
    if earlier:
        before = chronicle(memory, clock)
        up(before)
        before.end("SIGTERM", withdrawn=True)
    flaky = FlakyStore(memory, clock)
    mine = chronicle(flaky, clock)
    mine.turned(True, "200 OK")
    flaky.plan(fault, at)
    with pytest.raises(StoreUnavailable):
        mine.remember(True)
    mine.remember(True)
    assert stored(memory).state == "up"
    assert [name for name, *_ in told(memory)].count("up") == 1 + earlier


class Counting:
    """Counts what is written to a store, and when."""

    def __init__(self, store: SqliteStore, clock: Clock) -> None:
        self.writes: list[float] = []
        self._store = store
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        if name in ("create", "update", "keep_alive", "delete"):
            self.writes.append(self._clock())
        return getattr(self._store, name)


Steps = list[tuple[float, str]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.05, 0.3, 0.7, PACE, 5.0]),
        st.sampled_from(["turn", "turn", "turn", "released", "lost", "rest"]),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STEPS)
def test_however_it_flaps_there_is_a_write_a_second_and_the_last_state_wins(
    steps: Steps,
) -> None:
    """Flapping nodes would be a load on the store, or be remembered as they were."""
    clock = Clock()
    memory = memory_store(clock)
    counting = Counting(memory, clock)
    mine, is_up = chronicle(counting, clock), False
    for seconds, step in steps:
        clock.advance(seconds)
        if step == "turn":
            is_up = not is_up
            mine.turned(is_up, f"{clock():.2f}")
        elif step != "rest":
            mine.note(step)
        if is_up:
            mine.remember(False)
        mine.keep_up()
    clock.advance(PACE)
    mine.keep_up()
    gaps = [b - a for a, b in zip(counting.writes, counting.writes[1:], strict=False)]
    assert all(gap >= PACE - 1e-6 for gap in gaps)
    if counting.writes:
        assert stored(memory).state == ("up" if is_up else "down")
        assert len(stored(memory).events) <= MOST_EVENTS
    else:
        assert not any(step == "turn" for _, step in steps)
    before = len(counting.writes)
    clock.advance(1000)
    mine.keep_up()
    assert (len(counting.writes), mine.due_in) == (before, float("inf"))
    mine.end("SIGTERM", withdrawn=True)
    assert not before or stored(memory).state == "stopped"
    memory.close()


def test_what_was_pending_is_due_within_a_second(
    memory: SqliteStore, clock: Clock
) -> None:
    """With --interval=5m a node would be remembered as up for minutes."""
    mine = chronicle(memory, clock)
    up(mine)
    clock.advance(0.4)
    mine.turned(False, "refused")
    assert mine.due_in == pytest.approx(0.6)
    mine.keep_up()
    assert stored(memory).state == "up"
    clock.advance(0.6)
    mine.keep_up()
    assert (stored(memory).state, stored(memory).reason) == ("down", "refused")


def test_nothing_is_lost_at_a_stop(memory: SqliteStore, clock: Clock) -> None:
    """The last words of a node that crashes at once would be missing."""
    mine = chronicle(memory, clock)
    up(mine)
    mine.note("released", seconds=2)
    mine.turned(False, "refused")
    mine.ended_by("COMMAND ended with exit code 7")
    mine.end("", withdrawn=True)
    assert [name for name, *_ in told(memory)] == ["up", "released", "down", "stopped"]
    assert stored(memory).reason == "COMMAND ended with exit code 7"


def test_another_process_of_this_service_id_is_left_alone(
    memory: SqliteStore, clock: Clock
) -> None:
    """A node that gave way would tell everybody that the living one has stopped."""
    up(chronicle(memory, clock))
    value = Registration("a", "host-b", "up", "200 OK", "n").to_json()
    memory.create("es/hosts/a", value, 15)
    chronicle(memory, clock).end("SIGTERM", withdrawn=False)
    assert stored(memory).state == "up"


def test_a_member_that_was_forgotten_at_the_stop_stays_so(
    memory: SqliteStore, clock: Clock
) -> None:
    """`forget` would have to be said twice."""
    mine = chronicle(memory, clock)
    up(mine)
    memory.delete(memory.list(KEY).records[0])
    mine.end("SIGTERM", withdrawn=True)
    assert memory.list("").records == ()


def test_a_store_that_lost_its_data_learns_the_history_again(
    memory: SqliteStore, clock: Clock
) -> None:
    """After a restore of the store an election would not wait for a living member."""
    mine = chronicle(memory, clock)
    mine.note("queued")
    up(mine)
    memory.delete(memory.list(KEY).records[0])
    mine.remember(True)
    assert [name for name, *_ in told(memory)] == ["queued", "up"]
    memory.delete(memory.list(KEY).records[0])
    clock.advance(5)
    mine.turned(False, "refused")
    mine.keep_up()
    assert [name for name, *_ in told(memory)] == ["queued", "up", "down"]


def test_what_others_write_meanwhile_is_kept(memory: SqliteStore, clock: Clock) -> None:
    """An operator's election would be gone from the history with the next change."""
    mine = chronicle(memory, clock)
    up(mine)
    (record,) = memory.list(KEY).records
    theirs = fold(stored(memory), [happened("elected", "by hand")])
    memory.update(record, replace(theirs, rank="u 17").to_json(), None)
    clock.advance(2)
    mine.turned(False, "refused")
    mine.keep_up()
    assert [name for name, *_ in told(memory)] == ["up", "elected", "down"]
    assert stored(memory).rank == "u 17"


def test_a_newer_release_loses_nothing(memory: SqliteStore, clock: Clock) -> None:
    """An upgrade of one node after the other would lose what the new ones wrote."""
    event = {"at": "t", "event": "elected", "by": {"who": "ops"}}
    newer = {
        "service_id": "a",
        "host": "h",
        "state": "stopped",
        "schema": 7,
        "cluster": {"id": "u"},
        "events": [event],
    }
    memory.create(KEY, json.dumps(newer), None)
    up(chronicle(memory, clock))
    found = json.loads(memory.list(KEY).records[0].value)
    assert (found["schema"], found["cluster"]) == (7, {"id": "u"})
    assert found["events"][0] == event
    assert found["state"] == "up"


DEEP = '{"service_id": "a", "host": "h", "state": "up", "schema": 1, "x": %s}'


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{}",
        "no JSON",
        '{"service_id": "b", "host": "h", "state": "up", "schema": 1}',
        '{"service_id": "a", "host": "h", "state": "asleep", "schema": 2}',
        DEEP % '"\\ud800"',
        DEEP % ("[" * 900 + "]" * 900),
    ],
)
def test_what_is_no_members_record_is_left_alone(
    memory: SqliteStore, clock: Clock, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """What somebody else keeps there would go; or a healthy node stay down."""
    memory.create(KEY, value, None)
    mine = chronicle(memory, clock)
    for is_up in True, False, True:
        mine.turned(is_up, "")
        if is_up:
            mine.remember(True)
        clock.advance(5)
        mine.keep_up()
    mine.end("SIGTERM", withdrawn=True)
    assert memory.list(KEY).records[0].value == value
    (said,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert said.getMessage().startswith(
        "label ES: what is stored as es/members/a is left alone"
    )


def test_a_reason_is_short_printable_and_without_secrets() -> None:
    """A password in an error of the probe would be kept in the store for ever."""
    text.hide("s3cret-word")
    told = happened("down", "s3cret-word\x1b[2J" + "x" * 300, 1.23456)
    assert "s3cret" not in told.reason
    assert told.reason.isprintable()
    assert len(told.reason) == 100
    assert told.seconds == 1.235
    assert happened("down", "y" * 100).reason == "y" * 100


def test_notes_from_another_thread_are_not_lost(
    memory: SqliteStore, clock: Clock
) -> None:
    """A lease that is lost while the store is slow would not be in the history."""
    flaky = FlakyStore(memory, clock)
    mine = chronicle(flaky, clock)
    up(mine)
    clock.advance(5)
    mine.turned(False, "refused")

    def meanwhile(name: str) -> None:
        flaky.on_call = lambda name: None
        mine.lost("not renewed in time")

    flaky.on_call = meanwhile
    mine.keep_up()
    assert mine.due_in > 0
    clock.advance(mine.due_in)
    mine.keep_up()
    assert [name for name, *_ in told(memory)] == ["up", "down", "lost"]


def test_a_store_that_fails_is_asked_again(memory: SqliteStore, clock: Clock) -> None:
    """A change during an outage would never get there."""
    flaky = FlakyStore(memory, clock)
    mine = chronicle(flaky, clock)
    up(mine)
    clock.advance(5)
    mine.turned(False, "refused")
    flaky.plan("request")
    with pytest.raises(StoreUnavailable):
        mine.keep_up()
    clock.advance(mine.due_in)
    mine.keep_up()
    assert stored(memory).state == "down"

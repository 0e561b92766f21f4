"""Members that are gone, as `status` and `hosts --state` show them."""

from __future__ import annotations

import json
import threading
import time

import pytest

from integration.support.commands import HANG, Run, error_of, register
from integration.support.members import EVENTS, SINCE, remember, remembered
from service_monitor.net.calls import Bounds
from service_monitor.recipes.discovery import wait_for_hosts
from service_monitor.recipes.member import Event
from service_monitor.recipes.members import search_in
from service_monitor.recipes.status import gather, render
from service_monitor.records import Snapshot, member_key, registration_key
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore

# status


def test_a_member_that_is_gone_in_full(store: Store) -> None:
    """A script could not find out who is missing, or what became of it."""
    remember(store, "es-1", "stopped", port=1, info={"a": 1}, rank="7", events=EVENTS)
    assert gather(store, "es").for_json()["services"] == [
        {
            "label": "es",
            "service_id": "es-1",
            "host": "host-es-1",
            "port": 1,
            "state": "gone",
            "since": SINCE,
            "reason": "stopped: 200 OK",
            "info": {"a": 1},
            "last_state": "stopped",
            "rank": "7",
            "events": [
                {
                    "at": "2026-01-02T03:00:00Z",
                    "event": "granted",
                    "reason": "",
                    "seconds": 61.0,
                },
                {"at": SINCE, "event": "up", "reason": "200 OK", "seconds": 12.5},
            ],
        }
    ]


def test_who_is_missing_stands_among_the_living(run: Run, store: Store) -> None:
    """Nobody would see who is missing, since when, and whether it was stopped."""
    register(store, "es-1", "10.0.0.1")
    remember(store, "es-1", "stopped")
    remember(store, "es-2")
    remember(store, "es-10", "stopped", reason="SIGTERM")
    lines = run("status", "--label=es").out.splitlines()
    assert lines[0].split() == ["LABEL", "SERVICE", "HOST", "STATE", "SINCE", "REASON"]
    assert lines[1].startswith("es     es-1     10.0.0.1    up     20")
    assert lines[2:4] == [
        f"es     es-2     host-es-2   gone   after {SINCE}  died or was cut off; "
        f"last known up since {SINCE}: 200 OK",
        f"es     es-10    host-es-10  gone   {SINCE}        stopped: SIGTERM",
    ]


def test_what_happened_to_each(run: Run, store: Store) -> None:
    """The history would be in the store, and nobody could read it."""
    remember(store, "es-10", events=EVENTS)
    remember(store, "es-2", events=EVENTS[:1])
    assert "TIME" not in run("status").out
    told = run("status", "--label=es", "--events").out
    assert told.partition("\n\n")[2].partition("\n\n")[2].splitlines() == [
        "LABEL  SERVICE  TIME                  EVENT    TOOK       REASON",
        "es     es-2     2026-01-02T03:00:00Z  granted  1 min 1 s",
        "es     es-10    2026-01-02T03:00:00Z  granted  1 min 1 s",
        f"es     es-10    {SINCE}  up       12 s       200 OK",
    ]
    by_environment = run("status", "--label=es", env={"SERVICE_MONITOR_EVENTS": "1"})
    assert by_environment.out == told


def test_no_event_at_all(run: Run) -> None:
    """Nobody could tell no history from a broken option."""
    assert run("status", "--events").out.endswith("\n\nno event is remembered\n")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 10**400])
def test_a_duration_that_is_none_is_left_out(store: Store, seconds: float) -> None:
    """A foreign record would end `status` by a traceback, or its JSON be none."""
    remember(store, "es-1", events=(Event(SINCE, "up", "", seconds),))
    found = gather(store, "es")
    assert found.services[0].events[0].seconds is None
    json.dumps(found.for_json(), allow_nan=False)
    render(found, events=True)


def test_a_member_cannot_move_the_cursor(store: Store) -> None:
    """Whoever may write to the store could repaint the operator's terminal."""
    bad = "\x1b[2J\ud800\nfake"
    event = {"at": bad, "event": bad, "reason": bad}
    fields = {"reason": bad, "since": bad, "events": [event]}
    value = json.dumps(json.loads(remembered("es-1")) | fields)
    store.create(member_key("es", "es-1"), value, None)
    table = render(gather(store, "es"), events=True)
    assert table.replace("\n", "").isprintable()
    assert table.count(r"\x1b[2J\ud800\nfake") == 6


def test_a_huge_record_is_cut(store: Store) -> None:
    """One cell would push all others out of the window, and fill the memory."""
    huge = "x" * 1_000_000
    remember(store, "es-1", "stopped", reason=huge, events=(Event(SINCE, huge),))
    register(store, "es-2", "10.0.0.1", reason=huge)
    assert len(render(gather(store, "es"), events=True)) < 10_000


def test_what_is_no_member_is_warned_of(run: Run, store: Store) -> None:
    """Nobody would learn why a member is not shown, or how to mend it."""
    store.create("es/members/es-1", "{}", None)
    told = "es/members/es-1 is no member: left aside. To remove it: forget\n"
    assert run("status").err.endswith(told)
    assert run("hosts", "--label=es", "--state=gone").err.endswith(told)
    assert run("hosts", "--label=es").err == ""


class Counted(SqliteStore):
    """Counts how often it is asked."""

    calls = 0

    def list(self, prefix: str) -> Snapshot:
        self.calls += 1
        return super().list(prefix)


def test_a_thousand_members_are_one_call_and_no_wait() -> None:
    """`status` of a large label would cost a call each, or keep an operator waiting."""
    store = Counted(":memory:", Bounds())
    events = tuple(Event(SINCE, "down", "connection refused " * 5) for _ in range(20))
    for number in range(1000):
        remember(store, f"es-{number}", events=events)
    began = time.process_time()
    table = render(gather(store, "es"), events=True)
    assert time.process_time() - began < HANG
    assert len(table.splitlines()) == 21_005
    assert store.calls == 1
    store.close()


# hosts --state


@pytest.fixture
def members(store: Store) -> None:
    """Let one member be up, one down, and two be gone."""
    register(store, "a", "10.0.0.1")
    remember(store, "a", "stopped")
    register(store, "b", "10.0.0.10", "down")
    remember(store, "c", host="10.0.0.2", port=9301)
    remember(store, "d", "stopped", host="10.0.0.11")


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(
    ("argv", "out"),
    [
        ([], "10.0.0.1"),
        (["--state=up"], "10.0.0.1"),
        (["--state=down"], "10.0.0.10"),
        (["--state=gone"], "10.0.0.2:9301,10.0.0.11"),
        (["--state=gone", "--port=1"], "10.0.0.2:9301,10.0.0.11:1"),
        (["--state=any"], "10.0.0.1,10.0.0.2:9301,10.0.0.10,10.0.0.11"),
        (["--state=gone", "--format=lines"], "10.0.0.2:9301\n10.0.0.11"),
        (["--state=gone", "--format=json"], '["10.0.0.2:9301", "10.0.0.11"]'),
        (["--state=gone", "--wait=2"], "10.0.0.2:9301,10.0.0.11"),
    ],
)
def test_hosts_in_a_state(run: Run, argv: list[str], out: str) -> None:
    """A script could not ask who is missing, or was told to join who is dead."""
    assert run("hosts", "--label=ES", *argv) == (0, f"{out}\n", "")


@pytest.mark.usefixtures("members")
def test_the_state_from_the_environment(run: Run) -> None:
    """A variable named STATE, as other units have it, would change whom to join."""
    argv = ("hosts", "--label=es")
    assert run(*argv, env={"SERVICE_MONITOR_HOSTS_STATE": "down"}).out == "10.0.0.10\n"
    assert run(*argv, env={"SERVICE_MONITOR_STATE": "down"}).out == "10.0.0.1\n"


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("gone", "2 of 3 hosts gone after 0.05 s: 10.0.0.2:9301, 10.0.0.11"),
        ("down", "1 of 3 hosts down after 0.05 s: 10.0.0.10"),
    ],
)
def test_waiting_for_a_state_has_an_end(run: Run, state: str, told: str) -> None:
    """A script would hang, or be told of hosts that are up when it asked for others."""
    argv = ("hosts", "--label=es", f"--state={state}", "--wait=3", "--timeout=50ms")
    outcome = run(*argv)
    assert outcome.code == 1
    assert error_of(outcome) == f"label es: {told}"


@pytest.mark.usefixtures("members")
def test_waiting_for_any_state_has_an_end(run: Run) -> None:
    """The error would name no state, or a wrong one."""
    argv = ("hosts", "--label=es", "--state=any", "--wait=5", "--timeout=50ms")
    told = "label es: 4 of 5 hosts of any state after 0.05 s: "
    assert error_of(run(*argv)).startswith(told)


def test_waiting_until_one_is_gone(store: Store) -> None:
    """A script that takes nodes out one by one would not see that one has left."""
    register(store, "a", "10.0.0.1")
    (registered,) = store.list(registration_key("es", "a")).records
    remember(store, "a", host="10.0.0.1")
    threading.Timer(0.3, store.delete, [registered]).start()
    search = search_in(["gone"], "es")
    found = wait_for_hosts(store, "es", 1, HANG, Bounds(), search=search)
    assert found == ["10.0.0.1"]

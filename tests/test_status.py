"""What the store says, for people and for scripts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from service_monitor.recipes import status
from service_monitor.recipes.status import Row, gather, render
from service_monitor.records import Registration, Ticket, hosts_prefix, lease_prefix
from service_monitor.stores.base import Store
from service_monitor.timing import timestamp


def register(store: Store, label: str, name: str, **changes: object) -> None:
    fields = {"host": "10.0.0.1", "state": "up", "reason": "200 OK", "nonce": "n"}
    value = Registration(service_id=name, **fields | changes)  # type: ignore[arg-type]
    store.create(hosts_prefix(label) + name, value.to_json(), 30)


def queue(store: Store, label: str, name: str, state: str, **changes: object) -> int:
    fields = {"host": "10.0.0.1", "nonce": "n", "lease_timeout": 240, "slots": 1}
    value = Ticket(
        service_id=name,
        state=state,  # type: ignore[arg-type]
        **fields | changes,  # type: ignore[arg-type]
    )
    return store.create(lease_prefix(label) + name, value.to_json(), 30).version


def test_an_empty_store(store: Store) -> None:
    """Nobody could tell an empty store from a broken command."""
    found = gather(store, None)
    assert found == {"services": [], "leases": []}
    assert render(found).splitlines() == [
        "no service is registered",
        "",
        "no lease is held or waited for",
    ]


def test_services_with_what_they_publish(store: Store) -> None:
    """A script could not find a service's port."""
    register(store, "es", "es-1", info={"port": 1}, since="2026-01-02T03:04:05Z")
    assert gather(store, "es")["services"] == [
        {
            "label": "es",
            "service_id": "es-1",
            "host": "10.0.0.1",
            "port": None,
            "state": "up",
            "since": "2026-01-02T03:04:05Z",
            "reason": "200 OK",
            "info": {"port": 1},
            "last_state": None,
            "rank": None,
            "events": [],
        }
    ]


def test_services_are_sorted_naturally(store: Store) -> None:
    """es-10 would stand before es-2."""
    for label, name in ("b", "es-1"), ("a", "es-10"), ("a", "es-2"):
        register(store, label, name)
    rows = gather(store, None)["services"]
    assert [(row["label"], row["service_id"]) for row in rows] == [
        ("a", "es-2"),
        ("a", "es-10"),
        ("b", "es-1"),
    ]


def test_who_holds_and_who_waits(store: Store) -> None:
    """Nobody could see by whom the cluster is blocked, the complaint of other tools."""
    token = queue(store, "es", "es-9", "held", since=timestamp())
    queue(store, "es", "es-2", "waiting", since=timestamp())
    queue(store, "es", "es-1", "waiting", since=timestamp(), slots=2)
    leases = gather(store, None)["leases"]
    assert [(row["service_id"], row["state"], row["position"]) for row in leases] == [
        ("es-9", "held", 0),
        ("es-2", "waiting", 1),
        ("es-1", "waiting", 2),
    ]
    assert [row["token"] for row in leases] == [token, None, None]
    assert [row["slots"] for row in leases] == [1, 1, 2]
    assert all(0 <= row["age"] < 60 for row in leases)
    assert all(0 < row["seconds_left"] <= 30 for row in leases)


def test_a_lease_in_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script would miss a field, or get a number with seventeen digits."""
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    token = queue(store, "es", "es-1", "held", since=since.isoformat(), slots=3)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return since + timedelta(seconds=75.2345)

    monkeypatch.setattr(status, "datetime", Later)
    monkeypatch.setattr(store, "time_left", lambda record: 164.7654)
    assert gather(store, "es")["leases"] == [
        {
            "label": "es",
            "service_id": "es-1",
            "host": "10.0.0.1",
            "state": "held",
            "position": 0,
            "since": "2026-01-02T03:04:05+00:00",
            "age": 75.2,
            "seconds_left": 164.8,
            "token": token,
            "slots": 3,
        }
    ]


def test_each_label_has_its_own_queue(store: Store) -> None:
    """A waiter would seem to stand behind those of another cluster."""
    queue(store, "b", "b-1", "waiting")
    queue(store, "a", "a-1", "waiting")
    leases = gather(store, None)["leases"]
    assert [(row["label"], row["position"]) for row in leases] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("label", ["es", "ES"])
def test_one_label_alone(store: Store, label: str) -> None:
    """With many clusters in one store nobody would find theirs."""
    for name in "es", "es2", "rabbit":
        register(store, name, "x")
        queue(store, name, "x", "waiting")
    found = gather(store, label)
    assert [row["label"] for row in found["services"] + found["leases"]] == ["es", "es"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("es/hosts/x", "no JSON"),
        ("es/hosts/x", '{"service_id": "x"}'),
        ("es/lease/x", "[]"),
        ("es/other/x", "{}"),
        ("x", "{}"),
    ],
)
def test_what_is_not_ours_is_left_aside(store: Store, key: str, value: str) -> None:
    """One key that somebody else wrote would break the view of all."""
    store.create(key, value, 30)
    register(store, "es", "es-1")
    found = gather(store, None)
    assert [row["service_id"] for row in found["services"]] == ["es-1"]
    assert found["leases"] == []


@pytest.mark.parametrize("since", ["", "yesterday", "2026-01-02T03:04:05", "9" * 30])
def test_an_age_that_cannot_be_told(store: Store, since: str) -> None:
    """A ticket of another tool would break the view."""
    queue(store, "es", "es-1", "waiting", since=since)
    found = gather(store, "es")
    assert found["leases"][0]["age"] is None
    assert "?" in render(found)


def test_a_clock_that_is_ahead_gives_no_negative_age(store: Store) -> None:
    """-3600 s would puzzle the reader."""
    queue(store, "es", "es-1", "waiting", since="2999-01-01T00:00:00Z")
    assert gather(store, "es")["leases"][0]["age"] == 0.0


def test_the_table(store: Store) -> None:
    """Columns would not line up, and nobody would see who is next."""
    service: Row = {"label": "es", "service_id": "es-1", "host": "10.0.0.1"}
    up = service | {"state": "up", "since": "2026-01-02T03:04:05Z", "reason": "200 OK"}
    held = service | {"state": "held", "age": 75.0, "seconds_left": 240, "token": 7}
    waits = service | {"state": "waiting", "age": None, "seconds_left": 9.5}
    waits |= {"service_id": "elastic-2", "position": 1, "token": None}
    assert render({"services": [up], "leases": [held, waits]}) == "\n".join(
        [
            "LABEL  SERVICE  HOST      STATE  SINCE                 REASON",
            "es     es-1     10.0.0.1  up     2026-01-02T03:04:05Z  200 OK",
            "",
            "LABEL  LEASE       SERVICE    HOST      AGE         LEFT   TOKEN",
            "es     held        es-1       10.0.0.1  1 min 15 s  4 min  7",
            "es     position 1  elastic-2  10.0.0.1  ?           9.5 s",
        ]
    )


def test_a_record_cannot_move_the_cursor(store: Store) -> None:
    """Whoever may write to the store could repaint the operator's terminal."""
    register(store, "es", "es-1", reason="\x1b[2J\nfake", since="\r")
    table = render(gather(store, "es"))
    assert table.replace("\n", "").isprintable()
    assert r"\x1b[2J\nfake" in table


def test_all_of_it_is_json(store: Store) -> None:
    """`status --format json` would end in a traceback."""
    register(store, "es", "es-1", info={"a": [1, None]})
    queue(store, "es", "es-1", "held")
    found = gather(store, None)
    assert json.loads(json.dumps(found)) == found


def test_a_port_is_shown(store: Store) -> None:
    """Nobody could tell the nodes of one host apart."""
    register(store, "es", "es-1", port=9301)
    found = gather(store, "es")
    assert found["services"][0]["port"] == 9301
    assert "  10.0.0.1:9301  up" in render(found)


def test_a_host_that_is_none_is_not_shown(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A script would take a foreign record's list for one host."""
    register(store, "es", "es-1", host="a,b")
    register(store, "es", "es-2")
    queue(store, "es", "es-3", "held", host="a\nb")
    found = gather(store, None)
    assert [row["service_id"] for row in found["services"]] == ["es-2"]
    assert [row["host"] for row in found["leases"]] == ["?"]
    assert caplog.messages == ["es/hosts/es-1 names no valid host: left aside"]

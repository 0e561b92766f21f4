"""Publishing a service and listing who is up."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integration.support.fakes import Clock, FlakyStore
from service_monitor.errors import Stopped, StoreUnavailable, WaitTimeout
from service_monitor.net.calls import Stop
from service_monitor.recipes.discovery import natural, up_hosts, wait_for_hosts
from service_monitor.recipes.health import Health
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.records import Record, Registration
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

UP, DOWN = Health(up=True, reason="200 OK"), Health(reason="connection refused")
HANG = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(str(tmp_path / "s.db"), Stop())
    yield opened
    opened.close()


def publisher(store: Any, name: str = "a", **settings: Any) -> Publisher:
    service = Service("ES", name, f"host-{name}", **settings)
    return Publisher(store, service, vouch=lambda: True)


def said(store: SqliteStore, name: str = "a") -> dict[str, Any]:
    (record,) = store.list(f"es/hosts/{name}").records
    return dict(json.loads(record.value))


def test_a_registration_says_what_the_docs_promise(store: SqliteStore) -> None:
    """Other tools that read the records would break."""
    assert publisher(store, info={"rack": "r1"}).reconcile(UP)
    record = said(store)
    assert record.pop("nonce")
    assert record.pop("since").endswith("Z")
    assert record == {
        "service_id": "a",
        "host": "host-a",
        "state": "up",
        "reason": "200 OK",
        "info": {"rack": "r1"},
    }


def test_nothing_is_written_while_nothing_changes(store: SqliteStore) -> None:
    """An idle watch would cost the store a write each interval."""
    mine = publisher(store)
    mine.reconcile(UP)
    version = store.list("es/hosts/a").records[0].version
    mine.reconcile(UP)
    assert store.list("es/hosts/a").records[0].version == version


def test_since_changes_with_the_state_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` would show a service as young as its last error message."""
    times = iter("123456")
    monkeypatch.setattr(
        "service_monitor.recipes.publisher.timestamp", lambda: next(times)
    )
    mine = publisher(store)
    mine.reconcile(Health(reason="connection refused"))
    first = said(store)["since"]
    mine.reconcile(Health(reason="503 Service Unavailable"))
    assert (said(store)["since"], said(store)["reason"][:3]) == (first, "503")
    mine.reconcile(UP)
    assert said(store)["since"] != first


@pytest.mark.parametrize("fault", ["request", "reply"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_lost_message_heals_at_the_next_round(
    store: SqliteStore, fault: str, at: int
) -> None:
    """A lost write would leave the wrong state until the next change."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)
    flaky.plan(fault, at)
    with pytest.raises(StoreUnavailable):
        mine.reconcile(UP)
    assert mine.reconcile(UP)
    assert said(store)["state"] == "up"
    mine.reconcile(DOWN)
    assert said(store)["state"] == "down"


@pytest.mark.parametrize("fault", ["create", "update"])
def test_after_a_lost_reply_the_record_is_still_kept_alive(
    store: SqliteStore, fault: str
) -> None:
    """A healthy node would drop out of `hosts`, and the next one found a cluster."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky, ttl=0.6)
    mine.reconcile(DOWN)
    if fault == "create":
        store.delete(store.list("es/hosts/a").records[0])
    flaky.plan("reply", 1)
    with pytest.raises(StoreUnavailable):
        mine.reconcile(UP)
    assert flaky.calls[1] == fault
    until = now() + 1.5
    while now() < until:
        assert mine.reconcile(UP)
        assert said(store)["state"] == "up"
        time.sleep(0.1)
    time.sleep(0.9)  # by its keepalive alone
    assert said(store)["state"] == "up"
    mine.withdraw()


def test_a_deleted_record_comes_back(store: SqliteStore) -> None:
    """A service would stay invisible after its record lapsed in a store outage."""
    mine = publisher(store)
    mine.reconcile(UP)
    store.delete(store.list("es/hosts/a").records[0])
    assert mine.reconcile(UP)
    assert said(store)["state"] == "up"


def test_the_record_is_kept_alive_and_withdrawn(store: SqliteStore) -> None:
    """A healthy service would vanish, or a stopped one stay."""
    mine = publisher(store, ttl=0.5)
    mine.reconcile(UP)
    time.sleep(0.9)
    assert said(store)["state"] == "up"
    mine.withdraw()
    assert store.list("").records == ()
    time.sleep(0.4)
    assert store.list("").records == ()


def test_a_restarted_watch_takes_its_old_record_over(store: SqliteStore) -> None:
    """After kill -9 the new watch would have to wait for the old record to lapse."""
    publisher(store, ttl=5).reconcile(UP)
    fresh = publisher(store, ttl=0.5)
    assert fresh.reconcile(DOWN)
    assert said(store)["state"] == "down"
    time.sleep(0.9)
    assert said(store)["state"] == "down"  # kept alive by the new one
    fresh.withdraw()
    assert store.list("").records == ()


def test_what_is_down_is_not_kept_alive_as_up(store: SqliteStore) -> None:
    """An etcd out of space refuses "down", and `hosts` would list a dead node."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)
    mine.reconcile(UP)
    flaky.plan("request", 1)  # the update; deletes go through
    with pytest.raises(StoreUnavailable):
        mine.reconcile(DOWN)
    assert store.list("es/hosts/").records == ()
    assert mine.reconcile(DOWN)
    assert said(store)["state"] == "down"


def test_of_two_watches_the_newer_wins(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes with one service id would overwrite each other for ever."""
    older, newer = publisher(store), publisher(store)
    assert older.reconcile(DOWN)
    assert newer.reconcile(UP)
    with caplog.at_level(logging.ERROR):
        assert not older.reconcile(DOWN)
        assert not older.reconcile(DOWN)
    assert caplog.text.count("another watch publishes service id a") == 1
    assert newer.reconcile(UP)
    older.withdraw()
    assert said(store)["state"] == "up"
    newer.withdraw()
    assert older.reconcile(DOWN)  # the way is free again


def test_a_write_by_others_in_between_is_not_ours(store: SqliteStore) -> None:
    """A watch would believe that its state is stored while it is not."""
    flaky = FlakyStore(store, Clock())
    mine = publisher(flaky)

    def meddle(name: str) -> None:
        if name == "create":
            flaky.on_call = lambda name: None
            store.create("es/hosts/a", "{}", 30)

    flaky.on_call = meddle
    assert not mine.reconcile(UP)
    assert mine.reconcile(UP)


def registration(host: str, state: str) -> Record:
    value = Registration("x", host, state, "", "n").to_json()  # type: ignore[arg-type]
    return Record("k", value, 1, 1)


@pytest.mark.promise(6)
def test_hosts_are_those_up_each_once_in_natural_order() -> None:
    """A node would be told to join a dead one, or 10.0.0.10 before 10.0.0.2."""
    records = [
        registration("10.0.0.10", "up"),
        registration("10.0.0.2", "up"),
        registration("10.0.0.2", "up"),
        registration("10.0.0.1", "down"),
        registration("es-2", "up"),
        registration("es-10", "up"),
        Record("k", "not a registration", 1, 1),
        Record("k", '{"state": "up"}', 1, 1),
    ]
    assert up_hosts(records) == ["10.0.0.2", "10.0.0.10", "es-2", "es-10"]


def placed(host: str, port: int | None, state: str = "up") -> Record:
    value = Registration("x", host, state, "", "n", port=port).to_json()  # type: ignore[arg-type]
    return Record("k", value, 1, 1)


def test_two_nodes_of_one_host_are_two() -> None:
    """`hosts` would print the host once, and the second node be told of nobody else."""
    records = [
        placed("10.0.0.1", 9310),
        placed("10.0.0.1", 9301),
        placed("10.0.0.1", 9301),
        placed("10.0.0.1", 9302, "down"),
        placed("10.0.0.1", None),
        placed("2001:db8::1", 9301),
    ]
    assert up_hosts(records) == [
        "10.0.0.1",
        "10.0.0.1:9301",
        "10.0.0.1:9310",
        "[2001:db8::1]:9301",
    ]
    assert up_hosts(records, 9301) == [
        "10.0.0.1:9301",
        "10.0.0.1:9310",
        "[2001:db8::1]:9301",
    ]


def test_waiting_counts_nodes_of_one_host(store: SqliteStore) -> None:
    """`hosts --wait=2` would never end on a machine with two nodes."""
    store.create("es/hosts/a", placed("h", 9301).value, 30)
    store.create("es/hosts/b", placed("h", 9302).value, 30)
    assert wait_for_hosts(store, "es", 2, HANG, Stop()) == ["h:9301", "h:9302"]


def test_the_port_is_published(store: SqliteStore) -> None:
    """--advertise-port would change nothing."""
    service = Service("es", "a", "h", port=9301)
    mine = Publisher(store, service, lambda: True)
    assert mine.reconcile(UP)
    assert said(store)["port"] == 9301
    mine.withdraw()


BAD_HOSTS = ["a,b", "a b", "a\nb", "a\n", "", "-x", "--config=/etc/passwd", "\x1b[2J"]
BAD_HOSTS += ["es-1:9200", "[::1]", "é", "a\x00b", "a/b", "$(reboot)", "0.0.0.0"]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_none_is_left_aside(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign tool's record would end up as two hosts, or as an option of the
    service's command line."""
    records = [registration("10.0.0.1", "up"), registration(host, "up")]
    assert up_hosts(records) == ["10.0.0.1"]
    assert caplog.messages == ["k names no valid host: left aside"]


def test_waiting_for_hosts_counts_none_that_is_left_aside(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """`hosts --wait=2` would print one host, and warn twenty times a second."""
    store.create("es/hosts/a", registration("h", "up").value, 30)
    store.create("es/hosts/b", registration("a,b", "up").value, 30)
    with pytest.raises(WaitTimeout, match="1 of 2 hosts up"):
        wait_for_hosts(Broken(store, 0), "es", 2, 0.4, Stop())  # type: ignore[arg-type]
    assert caplog.messages == ["es/hosts/b names no valid host: left aside"]


def test_waiting_for_hosts_takes_a_last_look(store: SqliteStore) -> None:
    """What came just before the deadline would be reported as missing."""

    class Late(Broken):
        """Lets the host come in the last wait."""

        def wait(self, prefix: str, since: object, timeout: float) -> None:
            time.sleep(timeout)
            publisher(store, "a").reconcile(UP)

    late = Late(store, 0)
    assert wait_for_hosts(late, "es", 1, 0.2, Stop()) == ["host-a"]  # type: ignore[arg-type]


def test_waiting_for_hosts_looks_again_after_an_outage(store: SqliteStore) -> None:
    """The store would come back in time, and nobody ask it."""
    publisher(store, "a").reconcile(UP)
    broken = Broken(store, 1)
    assert wait_for_hosts(broken, "es", 1, 0.2, Stop()) == ["host-a"]  # type: ignore[arg-type]


@given(st.lists(st.text("0123456789.-:abé²")))
@example(["1", "01"])
def test_any_hosts_can_be_sorted(hosts: list[str]) -> None:
    """A strange host would break `hosts` for the whole cluster."""
    assert sorted(sorted(hosts), key=natural) == sorted(hosts, key=natural)


def test_waiting_for_hosts_ends_with_the_last_one(store: SqliteStore) -> None:
    """`hosts --wait 2` would return too early, or only at its next look."""
    publisher(store, "a").reconcile(UP)
    mine = publisher(store, "b")
    threading.Timer(0.3, mine.reconcile, (UP,)).start()
    begun = now()
    assert wait_for_hosts(store, "ES", 2, HANG, Stop()) == ["host-a", "host-b"]
    assert now() - begun < 4


def test_waiting_for_hosts_in_vain_names_who_is_there(store: SqliteStore) -> None:
    """The operator would not see how many are missing."""
    publisher(store, "a").reconcile(UP)
    with pytest.raises(WaitTimeout, match=r"1 of 3 hosts up after 0\.3 s: host-a"):
        wait_for_hosts(store, "es", 3, 0.3, Stop())


def test_waiting_for_hosts_ends_on_stop(store: SqliteStore) -> None:
    """Ctrl-C would not end `hosts --wait`."""
    stop = Stop()
    waiting = SqliteStore(store._path, stop)
    threading.Timer(0.2, stop.request).start()
    with pytest.raises(Stopped):
        wait_for_hosts(waiting, "es", 1, HANG, stop)
    waiting.close()


class Broken:
    """A store that fails so many times, and counts."""

    def __init__(self, store: SqliteStore, failures: int) -> None:
        self.calls = 0
        self._store = store
        self._failures = failures

    def list(self, prefix: str) -> Any:
        self.calls += 1
        if self.calls <= self._failures:
            raise StoreUnavailable("away")
        return self._store.list(prefix)

    def wait(self, *args: Any) -> None:
        """Return at once, as a hint may."""


@pytest.mark.promise(8)
def test_waiting_for_hosts_outlasts_an_outage(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart of the store would fail every waiting node."""
    publisher(store, "a").reconcile(UP)
    broken = Broken(store, 1)
    assert wait_for_hosts(broken, "es", 1, HANG, Stop()) == ["host-a"]  # type: ignore[arg-type]
    assert caplog.text.count("trying on: away") == 1


def test_waiting_for_hosts_tells_an_outage_from_too_few(store: SqliteStore) -> None:
    """A dead store would look like a cluster without nodes."""
    with pytest.raises(StoreUnavailable, match="away"):
        wait_for_hosts(Broken(store, 99), "es", 1, 0.2, Stop())  # type: ignore[arg-type]


def test_waiting_for_hosts_never_spins(store: SqliteStore) -> None:
    """`hosts --wait` without sleep loaded the store in the 2014 tool."""
    hasty = Broken(store, 0)
    with pytest.raises(WaitTimeout):
        wait_for_hosts(hasty, "es", 1, 0.5, Stop())  # type: ignore[arg-type]
    assert hasty.calls < 15

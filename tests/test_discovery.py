"""Whom to join: which hosts are up, and waiting for as many as asked for."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integration.support.commands import HANG
from integration.support.registrations import UP, publisher, said
from service_monitor.errors import (
    Stopped,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    WaitTimeout,
)
from service_monitor.net.calls import Bounds
from service_monitor.recipes.discovery import natural, up_hosts, wait_for_hosts
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.records import Record, Registration
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now


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


def test_a_host_without_a_port_comes_before_its_ports() -> None:
    """The list of two nodes on one host would change from call to call."""
    places = [(f"h{n}", port) for n in range(10) for port in (None, 1, 2)]
    expected = [f"h{n}{port}" for n in range(10) for port in ("", ":1", ":2")]
    assert up_hosts([placed(*place) for place in reversed(places)]) == expected


def test_only_ascii_digits_are_numbers() -> None:
    """A name with other digits would be sorted as the number that it looks like."""
    assert natural("es-10b") == [(1, 0, "es-"), (0, 10, "10"), (1, 0, "b")]
    assert natural("\u0663") == [(1, 0, "\u0663")]


def test_waiting_counts_nodes_of_one_host(store: SqliteStore) -> None:
    """`hosts --wait=2` would never end on a machine with two nodes."""
    store.create("es/hosts/a", placed("h", 9301).value, 30)
    store.create("es/hosts/b", placed("h", 9302).value, 30)
    assert wait_for_hosts(store, "es", 2, HANG, Bounds()) == ["h:9301", "h:9302"]


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
        wait_for_hosts(Broken(store, 0), "es", 2, 0.4, Bounds())  # type: ignore[arg-type]
    assert caplog.messages == ["es/hosts/b names no valid host: left aside"]


def test_waiting_for_hosts_takes_a_last_look(store: SqliteStore) -> None:
    """What came just before the deadline would be reported as missing."""

    class Late(Broken):
        """Lets the host come in the last wait."""

        def wait(self, prefix: str, since: object, timeout: float) -> None:
            time.sleep(timeout)
            publisher(store, "a").reconcile(UP)

    late = Late(store, 0)
    assert wait_for_hosts(late, "es", 1, 0.2, Bounds()) == ["host-a"]  # type: ignore[arg-type]


def test_waiting_for_hosts_looks_again_after_an_outage(store: SqliteStore) -> None:
    """The store would come back in time, and nobody ask it."""
    publisher(store, "a").reconcile(UP)
    broken = Broken(store, 1)
    assert wait_for_hosts(broken, "es", 1, 0.2, Bounds()) == ["host-a"]  # type: ignore[arg-type]


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
    assert wait_for_hosts(store, "ES", 2, HANG, Bounds()) == ["host-a", "host-b"]
    assert now() - begun < 4


def test_waiting_for_hosts_in_vain_names_who_is_there(store: SqliteStore) -> None:
    """The operator would not see how many are missing."""
    publisher(store, "a").reconcile(UP)
    with pytest.raises(WaitTimeout, match=r"1 of 3 hosts up after 0\.3 s: host-a"):
        wait_for_hosts(store, "es", 3, 0.3, Bounds())


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), "0 of 3 {}: none"), (("a", "b"), "2 of 3 {}: a:1, b:1")],
)
def test_too_few_hosts_are_named_with_their_ports(
    store: SqliteStore, names: tuple[str, ...], expected: str
) -> None:
    """The error would not tell which node is missing."""
    for name in names:
        store.create(f"es/hosts/{name}", registration(name, "up").value, 30)
    with pytest.raises(WaitTimeout) as refused:
        wait_for_hosts(store, "es", 3, 0.1, Bounds(), 1)
    assert str(refused.value) == "label es: " + expected.format("hosts up after 0.1 s")


def test_waiting_for_hosts_ends_on_stop(store: SqliteStore) -> None:
    """Ctrl-C would not end `hosts --wait`."""
    bounds = Bounds()
    waiting = SqliteStore(store._database.path, bounds)
    threading.Timer(0.2, bounds.stop.request).start()
    with pytest.raises(Stopped):
        wait_for_hosts(waiting, "es", 1, HANG, bounds)
    waiting.close()


class Broken:
    """A store that fails so many times, and counts."""

    def __init__(
        self,
        store: SqliteStore,
        failures: int,
        error: type[StoreError] = StoreUnavailable,
    ) -> None:
        self.calls = 0
        self._store = store
        self._failures = failures
        self._error = error

    def list(self, prefix: str) -> Any:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error("away")
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
    assert wait_for_hosts(broken, "es", 1, HANG, Bounds()) == ["host-a"]  # type: ignore[arg-type]
    assert caplog.text.count("trying again: away") == 1


def test_waiting_for_hosts_tells_an_outage_from_too_few(store: SqliteStore) -> None:
    """A dead store would look like a cluster without nodes."""
    with pytest.raises(StoreUnavailable, match="away"):
        wait_for_hosts(Broken(store, 99), "es", 1, 0.2, Bounds())  # type: ignore[arg-type]


def test_a_refusal_from_the_first_ends_waiting_at_once(store: SqliteStore) -> None:
    """With a wrong password `hosts --wait` would say so after six minutes."""
    refusing = Broken(store, 99, StoreRefused)
    with pytest.raises(StoreRefused):
        wait_for_hosts(refusing, "es", 1, HANG, Bounds())  # type: ignore[arg-type]
    assert refusing.calls == 1


def test_waiting_for_hosts_never_spins(store: SqliteStore) -> None:
    """`hosts --wait` without sleep loaded the store in the 2014 tool."""
    hasty = Broken(store, 0)
    with pytest.raises(WaitTimeout):
        wait_for_hosts(hasty, "es", 1, 0.5, Bounds())  # type: ignore[arg-type]
    assert hasty.calls < 15

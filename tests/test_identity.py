"""One service id on two hosts: the second one waits, and says for whom."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.support.commands import (
    HANG,
    Run,
    keys,
    register,
    registration,
    wait_until,
)
from integration.support.fakes import Clock, FlakyStore, StillSession, memory_store
from service_monitor.errors import IdInUse, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.health import Health
from service_monitor.recipes.identity import same_host
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.recipes.ticket_host import ticket_host
from service_monitor.recipes.timings import TIMINGS
from service_monitor.records import Registration
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore

UP = Health(up=True, reason="200 OK")


def request(host: str, name: str = "a", **settings: Any) -> Request:
    return Request("es", name, host, **{"lease_timeout": 60.0, **settings})


@pytest.fixture
def memory() -> SqliteStore:
    return memory_store(Clock())


def contender(store: Any, host: str, **settings: Any) -> Contender:
    return Contender(store, request(host, **settings), session=StillSession)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("ES-1.Example.org", "es-1.example.org.", True),
        ("es-1", "es-1.example.org", False),
        ("fd00::1", "FD00:0:0::0001", True),
        ("[fd00::1]", "fd00::1", True),
        ("fd00::1", "fd00::2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("", "10.0.0.1", False),
    ],
)
def test_spellings_of_one_host_are_one_host(one: str, other: str, same: bool) -> None:
    """A restart would wait for itself, or another machine be taken for this one."""
    assert same_host(one, other) is same
    assert same_host(other, one) is same


def test_a_lease_of_another_host_is_not_taken_over(memory: SqliteStore) -> None:
    """Two machines with one service id would boot at once."""
    lease = contender(memory, "10.0.0.1").step()
    assert isinstance(lease, Lease)
    second = contender(memory, "10.0.0.2")
    waiting = second.step()
    assert isinstance(waiting, Waiting)
    assert (waiting.obstacle, waiting.gone) == ("es/lease/a", True)
    assert "service id a is in use on host 10.0.0.1, where it holds" in waiting.conflict
    assert "`release-lease --force` or wait up to 1 min" in waiting.conflict
    second.leave()
    assert memory.list("es/lease/").records == (lease.record,)
    memory.delete(lease.record)
    assert isinstance(second.step(), Lease)


def test_a_place_of_another_host_is_not_taken_over(memory: SqliteStore) -> None:
    """The machine that waited would end, although it was there first."""
    assert isinstance(contender(memory, "10.0.0.9", name="x").step(), Lease)
    first = contender(memory, "10.0.0.1")
    assert isinstance(first.step(), Waiting)
    second = contender(memory, "10.0.0.2").step()
    assert isinstance(second, Waiting)
    assert "in use on host 10.0.0.1, where it waits in the queue" in second.conflict
    assert "wait up to 15 s" in second.conflict
    again = first.step()  # it was not replaced
    assert isinstance(again, Waiting)
    assert not again.conflict


def test_the_same_host_goes_on_in_whatever_spelling(memory: SqliteStore) -> None:
    """A restart would wait until its own lease is over."""
    assert isinstance(contender(memory, "fd00::1").step(), Lease)
    assert isinstance(contender(memory, "FD00:0::1").step(), Lease)


def test_a_host_that_is_only_a_guess_is_not_compared(memory: SqliteStore) -> None:
    """A container that starts again has another address, and would wait for itself."""
    assert isinstance(contender(memory, "172.17.0.2").step(), Lease)
    assert isinstance(contender(memory, "172.17.0.3", known=False).step(), Lease)


def test_of_two_that_create_at_the_same_moment_one_waits(memory: SqliteStore) -> None:
    """Both would see a free id, and the second write take the first one's place."""
    flaky = FlakyStore(memory, Clock())
    second = contender(flaky, "10.0.0.2")

    def meddle(name: str) -> None:
        if name == "create":
            flaky.on_call = lambda name: None
            assert isinstance(contender(memory, "10.0.0.1").step(), Lease)

    flaky.on_call = meddle
    waiting = second.step()
    assert isinstance(waiting, Waiting)
    assert "in use on host 10.0.0.1" in waiting.conflict


def test_a_lapsed_place_that_another_host_took_is_waited_for() -> None:
    """A machine that was paused would push out the one that started meanwhile."""
    clock = Clock()
    store = memory_store(clock)
    assert isinstance(contender(store, "10.0.0.9", name="x").step(), Lease)
    paused = contender(store, "10.0.0.1")
    paused.step()
    clock.advance(TIMINGS.waiter_ttl + 1)
    contender(store, "10.0.0.2").step()
    waiting = paused.step()
    assert isinstance(waiting, Waiting)
    assert "in use on host 10.0.0.2" in waiting.conflict


@pytest.fixture
def opened(path: Path) -> Iterator[list[SqliteStore]]:
    made: list[SqliteStore] = []
    yield made
    for store in made:
        store.close()


def try_it(
    path: Path, opened: list[SqliteStore], asked: Request, timeout: float = HANG
) -> Lease:
    bounds = Bounds()
    opened.append(SqliteStore(str(path), bounds))
    return acquire(opened[-1], asked, timeout, bounds)


def test_the_timeout_names_the_other_host(
    path: Path,
    store: Store,
    opened: list[SqliteStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The operator would look for a slow node where two have one name."""
    try_it(path, opened, request("10.0.0.1"))
    with pytest.raises(IdInUse) as failed:
        try_it(path, opened, request("10.0.0.2"), 0.5)
    why = (
        "service id a is in use on host 10.0.0.1, where it holds the lease: give each "
        "node an id of its own, or if that host is gone: `release-lease --force` or "
        "wait up to 1 min"
    )
    assert str(failed.value) == f"label es: lease not acquired within 0.5 s: {why}"
    told = [r for r in caplog.records if "in use" in r.getMessage()]
    assert [(r.levelno, r.getMessage()) for r in told] == [
        (logging.WARNING, f"label es: waiting, {why}")
    ]


def test_a_host_that_moved_gets_through_when_the_old_record_lapses(
    path: Path, store: Store, opened: list[SqliteStore]
) -> None:
    """A service that was moved to another machine could never start there."""
    old = Registration("a", "10.0.0.1", "up", "200 OK", "n").to_json()
    store.create("es/hosts/a", old, 1.0)
    contender(store, "10.0.0.1", lease_timeout=2.0).step()
    lease = try_it(path, opened, request("10.0.0.2", published=True))
    assert '"10.0.0.2"' in lease.record.value


def test_a_living_service_on_another_host_is_left_alone(
    path: Path, store: Store, opened: list[SqliteStore]
) -> None:
    """Its "up" would be taken back, and the turn taken by a stranger of its name."""
    register(store, "a", "10.0.0.1")
    with pytest.raises(IdInUse, match=r"on host 10\.0\.0\.1, where it is registered"):
        try_it(path, opened, request("10.0.0.2", published=True), 0.5)
    assert keys(store) == ["es/hosts/a"]


def test_an_id_that_came_up_elsewhere_meanwhile_is_refused(
    path: Path, store: Store, opened: list[SqliteStore], monkeypatch: Any
) -> None:
    """A machine that was paused while it looked would boot beside its namesake."""
    bounds = Bounds()
    opened.append(SqliteStore(str(path), bounds))
    asking, real = opened[-1], opened[-1].create

    def create(*args: Any) -> Any:
        register(store, "a", "10.0.0.1")
        return real(*args)

    monkeypatch.setattr(asking, "create", create)
    with pytest.raises(IdInUse, match="registered as up"):
        acquire(asking, request("10.0.0.2", published=True), HANG, bounds)
    assert keys(store) == ["es/hosts/a"]


def test_a_publisher_leaves_a_living_namesake_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Two machines would overwrite each other, and `hosts` name now one, now both."""
    old = Registration("a", "10.0.0.1", "up", "200 OK", "n").to_json()
    store.create("es/hosts/a", old, 1.0)
    mine = Publisher(store, Service("es", "a", "10.0.0.2"), vouch=lambda: True)
    assert not mine.reconcile(UP)
    assert not mine.reconcile(UP)
    mine.withdraw()
    found = registration(store, "es/hosts/a")
    assert found
    assert found.host == "10.0.0.1"
    assert (
        caplog.text.count("publishing nothing meanwhile: service id a is in use") == 1
    )
    wait_until(lambda: mine.reconcile(UP))  # when that has lapsed
    found = registration(store, "es/hosts/a")
    assert found
    assert found.host == "10.0.0.2"
    mine.withdraw()


def test_a_publisher_takes_its_own_hosts_record_over(store: Store) -> None:
    """A `watch` that starts again would wait for its own earlier life to lapse."""
    register(store, "a", "FD00::1")
    mine = Publisher(store, Service("es", "a", "fd00:0::1"), vouch=lambda: True)
    assert mine.reconcile(UP)
    mine.withdraw()


def test_acquire_lease_compares_registrations_only_by_a_host_that_was_given(
    run: Run, store: Store
) -> None:
    """It would wait for its own `watch`, which publishes another name of this host."""
    register(store, "a", "es-1.example.org")
    argv = ("acquire-lease", "--label=es", "--service-id=a", "--acquire-timeout=500ms")
    outcome = run(*argv, "--host=10.0.0.1")
    assert outcome.code == 1
    assert "in use on host es-1.example.org" in outcome.err
    assert run(*argv).code == 0


def no_route() -> str:
    raise StoreUnavailable("no route")


def test_where_no_host_is_given_the_address_counts_if_it_is_this_machines(
    tmp_path: Path,
) -> None:
    """Cloned machines would pass for one, or a container wait for its last life."""
    assert ticket_host("es-1", no_route) == ("es-1", True)
    assert ticket_host(None, lambda: "10.0.0.1", tmp_path) == ("10.0.0.1", True)
    assert ticket_host(None, lambda: "127.0.0.1", tmp_path) == ("127.0.0.1", False)
    assert not ticket_host(None, no_route, tmp_path)[1]
    (tmp_path / ".dockerenv").touch()
    assert ticket_host(None, lambda: "172.17.0.2", tmp_path) == ("172.17.0.2", False)


def test_a_wait_for_another_host_ends_with_it(
    path: Path, store: Store, opened: list[SqliteStore]
) -> None:
    """The operator would free the id by hand, and nothing come of it."""
    first = try_it(path, opened, request("10.0.0.1"))
    threading.Timer(0.5, store.delete, (first.record,)).start()
    assert '"10.0.0.2"' in try_it(path, opened, request("10.0.0.2")).record.value

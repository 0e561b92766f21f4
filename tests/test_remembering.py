"""What `watch` and `run` let their label remember, beside what they publish."""

from __future__ import annotations

import signal
import time
from typing import Any

from integration.support.bench import BAD, OK, Bench
from integration.support.commands import (
    HANG,
    Run,
    acquire,
    finish,
    is_up,
    keys,
    passing,
    register,
    wait_until,
)
from integration.support.run_script import HELD, UP, RunScript
from service_monitor.errors import StoreUnavailable
from service_monitor.recipes.chronicle import fold, happened
from service_monitor.recipes.member import Event, Member
from service_monitor.stores.base import Store

A, ES_1 = "es/members/a", "es/members/es-1"


def member(store: Store, key: str = ES_1) -> Member:
    (record,) = store.list(key).records
    found = Member.from_json(record.value)
    assert found is not None
    return found


def events(store: Store, key: str = ES_1) -> list[str]:
    return [event.event for event in member(store, key).events]


def of(name: str, store: Store) -> Event:
    """Give the newest event of this name."""
    return [event for event in member(store).events if event.event == name][-1]


def remember(store: Store) -> None:
    """Let es-1 be one that was up, and was killed."""
    up = happened("up", "200 OK")
    value = fold(Member("es-1", "10.0.0.1", "up"), [up], up).to_json()
    store.create(ES_1, value, None)


def test_a_node_is_remembered_before_the_next_may_start(bench: Bench) -> None:
    """Killed just then it would be unknown, and a node without data could found."""
    bench.acquire()
    written: list[str] = []

    def noting(name: str) -> None:
        real = getattr(bench.store, name)

        def call(what: Any, *args: Any) -> Any:
            written.append(getattr(what, "key", what))
            return real(what, *args)

        setattr(bench.store, name, call)

    for name in "create", "update", "delete":
        noting(name)
    watcher = bench.build()
    watcher.round()
    assert written == ["es/hosts/a"]  # it is down
    bench.answer = OK
    watcher.round()
    assert written[1:] == [A, "es/hosts/a", "es/lease/a"]
    assert member(bench.others, A).state == "up"


def test_what_is_not_remembered_is_not_published_as_up(bench: Bench) -> None:
    """The next node would start, and a killed one be forgotten by all."""
    bench.acquire()
    bench.answer = OK
    watcher, real = bench.build(), bench.store.create

    def away(key: str, *args: Any) -> Any:
        if key == A:
            raise StoreUnavailable("away")
        return real(key, *args)

    bench.store.create = away
    watcher.round()
    assert watcher.is_up
    assert (bench.hosts, bench.holders) == ([], ["es/lease/a"])
    bench.store.create = real
    watcher.round()
    assert (bench.hosts, bench.holders) == (["host-a"], [])
    assert events(bench.others, A)[:1] == ["up"]


def test_news_do_not_wait_for_the_next_probe(bench: Bench) -> None:
    """With --interval=5m a history would be told five minutes late."""
    bench.acquire()
    bench.answer = OK
    bench.start(interval=HANG * 2)
    wait_until(lambda: not bench.holders)
    wait_until(lambda: events(bench.others, A) == ["up", "released"], HANG / 2)


def test_each_change_is_remembered_with_its_reason_and_how_long_it_took(
    bench: Bench,
) -> None:
    """Nobody could tell since when a dead node was down, and why."""
    bench.answer = OK
    bench.start(fall=1)
    wait_until(lambda: bench.hosts)
    bench.answer = BAD
    wait_until(lambda: member(bench.others, A).state == "down")
    found = member(bench.others, A)
    assert found.reason == "connection refused"
    assert found.events[-1].seconds is not None
    bench.bounds.stop.request(15)
    wait_until(lambda: member(bench.others, A).state == "stopped")
    assert member(bench.others, A).reason == "SIGTERM"
    assert events(bench.others, A) == ["up", "down", "stopped"]


def test_who_gives_way_writes_nothing(bench: Bench) -> None:
    """Two nodes of one service id would write over each other's history."""
    register(bench.others, "a", "host-b")
    bench.answer = OK
    watcher = bench.build()
    for _ in range(3):
        watcher.round()
    bench.bounds.stop.request(15)
    watcher.withdraw()
    assert keys(bench.others) == ["es/hosts/a"]


def test_a_stop_deregisters_first(bench: Bench) -> None:
    """Others would be told to join a node that is going down, as a store is slow."""
    bench.answer = OK
    watcher = bench.build()
    watcher.round()
    seen: list[list[str]] = []
    real = bench.store.update

    def update(record: Any, *args: Any) -> Any:
        if record.key == A:
            seen.append(passing(bench.others))
        return real(record, *args)

    bench.store.update = update
    bench.bounds.stop.request(15)
    watcher.withdraw()
    assert seen == [[]]


def test_a_life_under_run_is_remembered(
    run: Run, store: Store, sound: RunScript
) -> None:
    """Nobody could tell how long a node queued, booted and was up."""
    assert acquire(run, "es-0").code == 0
    with sound("sleep 0.5; exec sleep 60") as running:
        wait_until(lambda: HELD in keys(store))
        time.sleep(0.3)
        assert run("release-lease", "--label=es", "--service-id=es-0").code == 0
        wait_until(lambda: HELD not in keys(store))
        running.terminate()
        finish(running)
    found = member(store)
    assert (found.host, found.state, found.reason) == ("10.0.0.1", "stopped", "SIGTERM")
    assert events(store) == ["queued", "granted", "up", "released", "stopped"]
    assert (of("granted", store).seconds or 0) >= 0.3
    assert of("granted", store).reason.startswith("token ")
    assert of("up", store).reason == "200 OK"


def test_a_command_that_ends_is_remembered_with_its_exit_code(
    store: Store, sound: RunScript, booting: RunScript
) -> None:
    """A crash would look like a stop."""
    with sound("until [ -e $SEEN ]; do sleep 0.05; done; exit 3") as running:
        wait_until(lambda: is_up(store, UP))
        sound.seen.touch()
        assert finish(running).code == 3
    assert of("stopped", store).reason == "COMMAND ended with exit code 3"
    with booting("exit 4") as running:
        assert finish(running).code == 4
    assert member(store).state == "stopped"
    assert of("failed", store).reason == "COMMAND ended with exit code 4"
    assert events(store)[-3:] == ["queued", "granted", "failed"]


def test_a_killed_node_is_remembered_as_it_was(store: Store, sound: RunScript) -> None:
    """After a power cut nobody would know whom to wait for."""
    with sound("exec sleep 3 >/dev/null 2>&1") as running:  # it outlives us
        wait_until(lambda: is_up(store, UP))
        running.send_signal(signal.SIGKILL)
        finish(running)
    assert member(store).state == "up"


def test_a_turn_that_never_came_is_remembered(
    run: Run, store: Store, sound: RunScript
) -> None:
    """A node that was up and waits in vain since would look as if nobody started it."""
    remember(store)
    assert acquire(run, "es-0").code == 0
    with sound("true", "--acquire-timeout=300ms") as running:
        assert finish(running).code == 1
    assert member(store).state == "stopped"
    assert "lease not acquired within 0.3 s" in of("failed", store).reason


def test_a_stop_in_the_queue_is_remembered(
    run: Run, store: Store, sound: RunScript
) -> None:
    """A node that an operator has stopped would look like a dead one."""
    remember(store)
    assert acquire(run, "es-0").code == 0
    with sound("true") as running:
        wait_until(lambda: HELD in keys(store))
        running.terminate()
        finish(running)
    assert (member(store).state, member(store).reason) == ("stopped", "SIGTERM")


def test_who_is_refused_as_another_host_has_the_id_writes_nothing(
    store: Store, sound: RunScript
) -> None:
    """A wrong service id would mark a healthy node as stopped."""
    remember(store)
    register(store, "es-1", "10.0.0.2")
    with sound("true", "--acquire-timeout=300ms") as running:
        assert finish(running).code == 1
    assert (member(store).state, events(store)) == ("up", ["up"])


def test_acquire_lease_writes_nothing(run: Run, store: Store) -> None:
    """It would meet the `watch` beside it, whose record it is."""
    remember(store)
    before = store.list(ES_1)
    assert acquire(run, "es-1", "--host=10.0.0.1").code == 0
    assert run("release-lease", "--label=es", "--service-id=es-1").code == 0
    assert store.list(ES_1).records == before.records

"""What no waiting can lift ends a start at once; what comes later is waited out."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.support.commands import HANG, Run, environment, finish, started
from integration.support.loopback import Serve, answering, status
from service_monitor.errors import (
    AcquireTimeout,
    LocalLack,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.node.probe import Result
from service_monitor.node.pulse import Pulse
from service_monitor.node.startup_lease import AnyOfOurs
from service_monitor.node.watcher import Rhythm, Watched, Watcher
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.discovery import wait_for_hosts
from service_monitor.recipes.lease import Request
from service_monitor.recipes.publisher import Service
from service_monitor.records import Snapshot
from service_monitor.stores.sqlite.database import Database
from service_monitor.stores.sqlite.errors import failure
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

REFUSED = StoreRefused("table t: PutItem: no such right")
LACK = LocalLack("this machine lacks threads")
REQUEST = Request("es", "a", "host-a", lease_timeout=60.0)
SOON = 5.0
"""Seconds within which "at once" was; far less than what is waited otherwise."""


@pytest.fixture
def failing(tmp_path: Path, bounds: Bounds) -> Any:
    """Give a store whose calls fail as `plan` says: by name, an error for each call."""
    store: Any = SqliteStore(str(tmp_path / "s.db"), bounds)
    store.plan = {}

    def spoil(name: str) -> None:
        real: Callable[..., Any] = getattr(store, name)

        def call(*args: Any, **settings: Any) -> Any:
            errors = store.plan.get(name)
            if errors and (error := errors.pop(0)):
                raise error
            return real(*args, **settings)

        setattr(store, name, call)

    for name in "list", "create", "update", "wait", "delete":
        spoil(name)
    return store


# acquire-lease


@pytest.mark.parametrize("call", ["list", "create", "update"])
@pytest.mark.parametrize("before", [[], [StoreUnavailable("booting")]])
def test_a_refusal_at_the_first_contact_ends_the_start(
    failing: Any,
    bounds: Bounds,
    call: str,
    before: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A typing error in the password would be found out after six minutes."""
    failing.plan = {call: [*before, *[REFUSED] * 9]}
    begun = now()
    with pytest.raises(StoreRefused, match="no such right"):
        acquire(failing, REQUEST, HANG, bounds)
    assert now() - begun < SOON
    assert "cannot take the ticket back" not in caplog.text
    failing.plan = {}
    assert failing.list("").records == ()


def test_a_ticket_that_may_be_left_behind_by_a_refusal_is_told(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """Others would wait for it, and nobody know why."""
    lost = StoreUnavailable("its reply was lost")
    failing.plan = {"create": [lost], "list": [None, None, *[REFUSED] * 9]}
    with pytest.raises(StoreRefused, match="no such right"):
        acquire(failing, REQUEST, HANG, bounds)
    assert "cannot take the ticket back" in caplog.text


@pytest.mark.promise(8)
def test_a_refusal_later_on_is_waited_out(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """An administrator who mends the rights would send all nodes out of the queue."""
    acquire(failing, Request("es", "holder", "h", lease_timeout=1.5), HANG, bounds)
    failing.plan = {"list": [None, None, None, REFUSED, REFUSED]}
    with caplog.at_level(logging.INFO):
        lease = acquire(failing, REQUEST, HANG, bounds)
    assert lease.record.key == "es/lease/a"
    refused = [r for r in caplog.records if "the store refuses us" in r.message]
    assert [r.levelname for r in refused] == ["ERROR"]
    assert "trying on: table t: PutItem: no such right" in caplog.text
    assert "the store is back" in caplog.text


def test_a_refusal_to_the_end_says_whose_it_is(failing: Any, bounds: Bounds) -> None:
    """The operator would look for an outage."""
    acquire(failing, Request("es", "holder", "h"), HANG, bounds)
    failing.plan = {"list": [None, None, None, *[REFUSED] * 99]}
    with pytest.raises(AcquireTimeout, match="; the store refuses us: table t: PutI"):
        acquire(failing, REQUEST, 1.0, bounds)


DENIED = status("403 No", body=b'{"code": 7, "message": "permission denied"}')
NO_V2 = status("404 No", body=b"404 page not found")
NO_RIGHT = b'{"errorCode": 110, "message": "no right", "index": 1}'


@pytest.mark.parametrize(
    ("scheme", "answer", "says"),
    [
        ("etcd", DENIED, "permission denied"),
        ("etcd2", NO_V2, "start etcd with --enable-v2"),
        (
            "etcd2",
            status("401 No", body=NO_RIGHT),
            "name a user in the URL, USER@HOST, with a password",
        ),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("acquire-lease",),
        ("run", "--monitor-url=http://127.0.0.1:1", "--", "true"),
        ("hosts", "--wait"),
    ],
    ids=lambda command: command[0],
)
def test_commands_that_wait_end_where_they_were_never_served(
    run: Run,
    serve: Serve,
    scheme: str,
    answer: bytes,
    says: str,
    command: tuple[str, ...],
) -> None:
    """A boot would hang for six minutes, and the log not say what is to be mended."""
    store = f"{scheme}://127.0.0.1:{serve(answering(answer)).port}"
    name, *argv = command
    begun = now()
    code, out, err = run(name, "--label=es", f"--store={store}", *argv)
    assert now() - begun < SOON
    assert (code, out) == (69, "")
    assert "service-monitor: the store refuses us: " in err
    assert says in err
    assert "trying on" not in err
    assert "deregistered" not in err


def test_who_starts_without_a_turn_starts_without_the_store(
    serve: Serve, tmp_path: Path
) -> None:
    """A service that shall start anyway would be kept down by a changed password."""
    store = f"etcd://127.0.0.1:{serve(answering(DENIED)).port}"
    url = "--monitor-url=http://127.0.0.1:1"
    mark = tmp_path / "started"
    argv = ["run", "--label=es", f"--store={store}", url, "--on-lease-timeout=start"]
    with started([*argv, "--", "touch", str(mark)], environment(tmp_path)) as running:
        code, _, err = finish(running)
    assert code == 0
    assert mark.exists()
    assert "ERROR starting without the lease: the store refuses us: " in err


def test_a_database_that_we_may_not_write_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume mounted wrongly would hold up a boot for six minutes."""
    SqliteStore(str(path), Bounds()).list("")
    uri = f"file:{path}?mode=ro"

    def connect(database: Database) -> sqlite3.Connection:
        database._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        database._opened = database._identity()
        return database._connection

    monkeypatch.setattr(Database, "_connect", connect)
    begun = now()
    bounds = Bounds()
    with pytest.raises(StoreRefused, match="readonly database: let this user write th"):
        acquire(SqliteStore(str(path), bounds), REQUEST, HANG, bounds)
    assert now() - begun < SOON


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        (sqlite3.SQLITE_READONLY, True),
        (sqlite3.SQLITE_READONLY_RECOVERY, True),
        (sqlite3.SQLITE_PERM, True),
        (sqlite3.SQLITE_READONLY_DBMOVED, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_SCHEMA, False),
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_CANTOPEN, False),
    ],
)
def test_what_sqlite_says_is_told_apart(
    tmp_path: Path, code: int, refused: bool
) -> None:
    """A disk that is full for a moment would end every start."""
    error = sqlite3.OperationalError("so it says")
    error.sqlite_errorcode = code
    found = failure(str(tmp_path / "s.db"), error)
    assert isinstance(found, StoreRefused) is refused


# watch


def watcher(store: Any, bounds: Bounds, rounds: int) -> Watcher:
    """Give one that stops after so many probes."""
    probes = []

    def probe() -> Result:
        probes.append(1)
        if len(probes) == rounds:
            bounds.stop.request()
        return Result(True, "200 OK")

    service = Service("es", "b", "host-b")
    watched = Watched(service, probe, Rhythm(0.01))
    return Watcher(store, watched, AnyOfOurs(), Pulse(service.ttl), bounds)


def test_a_watch_goes_on_beside_its_service(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that serves would not be listed once the table is made."""
    failing.plan = {"create": [REFUSED]}
    with caplog.at_level(logging.INFO):
        watcher(failing, bounds, 3).run()
    levels = {r.message: r.levelname for r in caplog.records}
    assert levels[
        "the store refuses us, probing on: table t: PutItem: no such right"
    ] == ("ERROR")
    assert "the store is back" in levels
    assert "deregistered b" in levels


@pytest.mark.parametrize(
    "plan",
    [
        {"create": [REFUSED] * 99},
        {"list": [REFUSED] * 99},
        {"list": [StoreUnavailable("away")] * 99},
    ],
)
def test_who_was_never_registered_is_not_deregistered(
    failing: Any,
    bounds: Bounds,
    caplog: pytest.LogCaptureFixture,
    plan: dict[str, list[Exception]],
) -> None:
    """The log would tell of a registration that nobody ever saw."""
    failing.plan = plan
    with caplog.at_level(logging.INFO):
        watcher(failing, bounds, 2).run()
    assert "b is not registered and never was" in caplog.text
    assert "deregistere" not in caplog.text.replace("cannot deregister", "deregistere")


def test_a_write_without_an_answer_may_have_arrived(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """A record left behind would not be told of."""
    real = failing.create

    def lost(*args: Any) -> Any:
        made = real(*args)
        if args[0] != "es/hosts/b":
            return made
        failing.plan = {"list": [StoreUnavailable("away")] * 99}
        raise StoreUnavailable("reply lost")

    failing.create = lost
    with caplog.at_level(logging.INFO):
        watcher(failing, bounds, 2).run()
    assert "cannot deregister, the record lapses within 15 s: away" in caplog.text


def test_a_record_that_went_by_itself_is_not_deregistered(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be believed to have been listed up to the end."""
    service = watcher(failing, bounds, 2)
    real = failing.list

    def emptied(prefix: str) -> Snapshot:
        return Snapshot(()) if bounds.stop.requested else real(prefix)

    failing.list = emptied
    with caplog.at_level(logging.INFO):
        service.run()
    assert "b is not registered any more" in caplog.text


# hosts --wait


def test_hosts_that_was_served_waits_a_refusal_out(
    failing: Any, bounds: Bounds
) -> None:
    """A cluster would not form because an administrator was at work."""
    failing.plan = {"list": [None, REFUSED, REFUSED]}
    up = watcher(SqliteStore(failing._database.path, bounds), Bounds(), 99)
    threading.Timer(0.3, up.round).start()
    assert wait_for_hosts(failing, "es", 1, HANG, bounds) == ["host-b"]


# what this machine lacks


def test_a_lack_is_waited_out_and_not_called_an_outage(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator would mend the store, where this machine is at a limit."""
    failing.plan = {"list": [LACK, LACK], "create": [LACK]}
    with caplog.at_level(logging.INFO):
        acquire(failing, REQUEST, HANG, bounds)
    said = "no outage of the store, trying on: this machine lacks threads"
    assert caplog.text.count(said) == 1
    assert "does not serve us" not in caplog.text
    assert "the store is back" not in caplog.text


def test_a_watch_outlives_a_lack(
    failing: Any, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> None:
    """A service would go unwatched after a moment of too many processes."""
    failing.plan = {"list": [LACK, LACK, LACK]}
    with caplog.at_level(logging.INFO):
        watcher(failing, bounds, 5).run()
    assert "no outage of the store, probing on: this machine lacks" in caplog.text
    assert "this machine has again what it lacked" in caplog.text
    assert "deregistered b" in caplog.text


def test_a_lack_to_the_end_ends_hosts_with_it(failing: Any, bounds: Bounds) -> None:
    """A script would take it for a store that is down."""
    failing.plan = {"list": [LACK] * 99}
    with pytest.raises(LocalLack):
        wait_for_hosts(failing, "es", 1, 0.3, bounds)

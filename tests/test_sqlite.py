"""The SQLite store: the contract, and what is special to one file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from integration.support.durable_contract import *  # noqa: F403
from integration.support.fakes import Clock
from integration.support.store_contract import *  # noqa: F403
from integration.support.store_contract import MakeStore
from service_monitor.errors import KeyExists, StoreRefused, StoreUnavailable
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def label() -> str:
    return "es"


@pytest.fixture
def make_store(path: Path) -> Iterator[MakeStore]:
    opened: list[SqliteStore] = []

    def make(bounds: Bounds | None = None) -> SqliteStore:
        opened.append(SqliteStore(str(path), bounds or Bounds()))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


Open = Callable[..., SqliteStore]


@pytest.fixture
def open_in(path: Path) -> Iterator[Open]:
    """Give a function that opens the file in a boot, at a time of the clock."""
    opened: list[SqliteStore] = []

    def open_in(boot: str, clock: Clock, *, genuine: bool = True) -> SqliteStore:
        opened.append(
            SqliteStore(str(path), Bounds(), clock, lambda: boot, lambda _: genuine)
        )
        return opened[-1]

    yield open_in
    for store in opened:
        store.close()


def keys(store: SqliteStore) -> list[str]:
    return [record.key for record in store.list("").records]


def at(time: float) -> Clock:
    clock = Clock()
    clock.time = time
    return clock


@pytest.mark.promise(7)
@pytest.mark.parametrize("uptime", [10.0, 990.0])
def test_records_of_an_earlier_boot_are_dead(open_in: Open, uptime: float) -> None:
    """After a reboot the queue would wait for processes that are no more."""
    open_in("one", at(1000)).create("es/a", "1", 100)
    after = open_in("two", at(uptime))
    assert keys(after) == []
    assert after.create("es/a", "2", 100).created > 1
    assert keys(after) == ["es/a"]


@pytest.mark.promise(1)
@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False)])
def test_a_boot_id_of_a_container_proves_nothing(
    open_in: Open, first: bool, second: bool
) -> None:
    """Two systemd-nspawn or LXC containers with one file would both have the lease."""
    clock = at(1000)
    one = open_in("one", clock, genuine=first)
    two = open_in("two", clock, genuine=second)
    held = one.create("es/a", "1", 100)
    with pytest.raises(KeyExists):
        two.create("es/a", "2", 100)
    two.create("es/b", "2", 100)
    one.keep_alive(held, 100)
    assert keys(one) == keys(two) == ["es/a", "es/b"]
    clock.advance(101)
    assert keys(one) == keys(two) == []


@pytest.mark.parametrize("genuine", [True, False])
def test_durable_records_outlive_a_reboot(open_in: Open, genuine: bool) -> None:
    """After a power cut nobody would know who belongs to the cluster."""
    before = open_in("one", at(5000), genuine=genuine)
    first = before.create("es/members/a", "1", None)
    before.create("es/hosts/a", "1", 100)
    after = open_in("two", at(10), genuine=genuine)
    container = open_in("own", at(10), genuine=False)
    assert keys(after) == keys(container) == ["es/members/a"]
    second = container.update(first, "2", None)
    assert second.version > first.version + 1
    assert after.list("").records == (second,)
    assert keys(open_in("three", at(1), genuine=genuine)) == ["es/members/a"]


def test_a_deadline_beyond_its_ttl_is_of_an_earlier_boot(open_in: Open) -> None:
    """After a reboot containers would wait for as long as the machine had been up."""
    open_in("one", at(5000), genuine=False).create("es/a", "1", 100)
    after = open_in("two", at(10), genuine=False)
    assert keys(after) == []
    after.create("es/a", "2", 100)
    assert keys(after) == ["es/a"]


def test_each_write_counts_with_its_own_ttl(open_in: Open) -> None:
    """A lease of 4 min on a ticket of 15 s would pass for one of an earlier boot."""
    clock = at(1000)
    store = open_in("one", clock)
    record = store.update(store.create("es/a", "1", 15), "2", 240)
    other = open_in("own", clock, genuine=False)
    assert keys(other) == ["es/a"]
    assert other.time_left(record) == 240
    clock.advance(200)
    store.keep_alive(record, 15)
    assert other.time_left(record) == 15


def test_a_pause_between_clock_and_rows_makes_nobody_dead(
    open_in: Open, path: Path
) -> None:
    """A node stopped for a moment would take the lease that others renew meanwhile."""
    clock = at(1000)
    store = open_in("one", clock)
    record = store.create("es/a", "1", 15)
    looks = 0

    def paused() -> float:
        """Give the time; the second look comes 20 s later, after a renewal."""
        nonlocal looks
        looks += 1
        seen = clock.time
        if looks == 2:  # the first is when it is opened
            clock.advance(14)
            store.keep_alive(record, 15)
            clock.advance(6)
        return seen

    other = SqliteStore(str(path), Bounds(), paused, lambda: "one", lambda _: True)
    assert keys(other) == ["es/a"]
    assert looks > 2
    other.close()


@pytest.mark.promise(1)
def test_two_kernels_on_one_file_are_found_out(open_in: Open, path: Path) -> None:
    """Virtual machines with one shared folder would all start at once, for ever."""
    first = open_in("one", at(1000))
    held = first.create("es/a", "1", 100)
    second = open_in("two", at(2000))
    second.create("es/a", "2", 100)
    for call in (
        lambda: first.list(""),
        lambda: first.create("es/b", "1", 100),
        lambda: first.keep_alive(held, 100),
        lambda: first.time_left(held),
        lambda: open_in("one", at(1001)).list(""),
    ):
        with pytest.raises(StoreRefused, match="another kernel has used this file"):
            call()
    assert keys(second) == ["es/a"]
    assert keys(open_in("three", at(5))) == []  # a reboot, of either


def test_who_calls_others_dead_is_the_last_boot(open_in: Open) -> None:
    """A second kernel would print that nobody is up, and nobody would ever know."""
    first = open_in("one", at(1000))
    first.create("es/a", "1", 100)
    assert keys(open_in("two", at(1000))) == []
    with pytest.raises(StoreRefused):
        first.list("")


def broken(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE records (a INT); CREATE TABLE b (a INT);")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


def foreign(statement: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(statement)

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("no database at all\n" * 200),
        broken,
        foreign("CREATE TABLE records (a INT)"),
        foreign("CREATE TABLE revision (x TEXT)"),
        foreign("CREATE VIEW spans AS SELECT 1"),
    ],
    ids=["text", "broken", "records", "revision", "view"],
)
def test_a_file_that_is_no_store_of_ours_is_refused(
    make_store: MakeStore, path: Path, make: Callable[[Path], None]
) -> None:
    """A wrong path in --store would be waited out like an outage, for ten minutes."""
    make(path)
    with pytest.raises(StoreRefused, match=r"store\.db: .*: is it a store of ours"):
        make_store().create("es/a", "1", 5)


OLDER = """
CREATE TABLE revision (n INTEGER NOT NULL);
INSERT INTO revision VALUES (7);
CREATE TABLE records (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL, deadline REAL NOT NULL, boot TEXT NOT NULL
) WITHOUT ROWID;
"""


def test_a_file_of_an_older_release_is_read(open_in: Open, path: Path) -> None:
    """With the new release all nodes would start anew, beside those that run."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLDER)
        rows = [
            ("es/here", "1", 5, 5, 1000.0 + 5000, "one"),
            ("es/over", "1", 6, 6, 999.0, "one"),
            ("es/other", "1", 7, 7, 1000.0 + 15, "a container's"),
            ("es/reboot", "1", 4, 4, 86400.0, "earlier"),
        ]
        db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.commit()
    store = open_in("one", at(1000))
    assert keys(store) == ["es/here", "es/other"]
    assert store.create("es/new", "1", 15).created == 8
    assert keys(store) == ["es/here", "es/other", "es/new"]


def test_an_older_release_may_use_the_file_meanwhile(open_in: Open, path: Path) -> None:
    """The `watch` of a running node would vanish while the nodes are updated."""
    clock = at(1000)
    store = open_in("one", clock)
    mine = store.create("es/new", "1", 15)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("INSERT INTO records VALUES ('es/old', 'o', 90, 90, 1240, 'one')")
        old.execute("UPDATE records SET deadline = 1900 WHERE key = 'es/new'")
        assert keys(store) == ["es/new", "es/old"]
        assert store.time_left(mine) == 900
        store.create("es/other", "1", 15)
        store.create("es/stays", "1", None)
        dead = "DELETE FROM records WHERE boot != 'one' OR deadline <= 1000"
        assert old.execute(dead).rowcount == 0
        old.execute("DELETE FROM records WHERE key = 'es/other'")
    left = ["es/new", "es/stays", "es/old"]
    assert keys(store) == keys(open_in("one", clock)) == left


def test_a_replaced_file_is_noticed(make_store: MakeStore, path: Path) -> None:
    """A holder on the unlinked file and one on the new file would both start."""
    store = make_store()
    store.create("es/a", "1", 30)
    path.unlink()
    with pytest.raises(StoreUnavailable, match="replaced"):
        store.list("")
    assert store.list("").records == ()


def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Nodes that boot at the same moment would find the file locked, and wait."""
    for turn in range(20):
        stores = [SqliteStore(str(tmp_path / f"{turn}.db"), Bounds()) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda store: store.list(""), stores))
        for store in stores:
            store.close()


def test_a_corrupt_file_is_an_error(path: Path) -> None:
    """An empty list would be printed as if nobody were up."""
    path.write_bytes(b"not a database" * 100)
    store = SqliteStore(str(path), Bounds())
    with pytest.raises(StoreRefused, match=r"store\.db"):
        store.list("")


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """A typing error in the path would be a store of one's own."""
    store = SqliteStore(str(tmp_path / "no" / "store.db"), Bounds())
    with pytest.raises(StoreUnavailable, match="unable to open"):
        store.list("")


def test_a_path_that_leads_nowhere_any_more_is_an_error(
    make_store: MakeStore, path: Path
) -> None:
    """A volume that went away would end `watch` instead of being waited out."""
    store = make_store()
    store.list("")
    folder = path.parent
    folder.rename(folder.with_name("moved"))
    folder.write_text("a file now")
    with pytest.raises(StoreUnavailable, match="replaced"):
        store.list("")
    with pytest.raises(StoreUnavailable):
        store.list("")


def test_a_stop_does_not_wait_for_a_stuck_writer(
    make_store: MakeStore, path: Path
) -> None:
    """SIGTERM would take longer than the two seconds that are promised."""
    bounds = Bounds()
    store = make_store(bounds)
    store.list("")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bounds.stop.request(15)
    begun = now()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="locked"):
            store.create("es/a", "1", 30)
    assert now() - begun < STOP_GRACE + 0.5
    other.close()


def test_a_stuck_writer_is_waited_for_and_then_reported(
    make_store: MakeStore, path: Path
) -> None:
    """A writer stopped inside its transaction would hang everybody for ever."""
    store = make_store()
    store.list("")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.create("es/a", "1", 30)
    other.execute("ROLLBACK")
    other.close()
    store.create("es/a", "1", 30)


def test_a_refused_write_leaves_nothing_half_done(
    make_store: MakeStore, path: Path
) -> None:
    """A full disk would leave a transaction open that blocks all others."""
    store = make_store()
    record = store.create("es/a", "1", 30)
    setup = sqlite3.connect(path)
    setup.execute(
        "CREATE TRIGGER full BEFORE UPDATE ON records BEGIN"
        " SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
    )
    setup.commit()
    with pytest.raises(StoreUnavailable, match="full"):
        store.update(record, "2", 30)
    setup.execute("DROP TRIGGER full")
    setup.commit()
    setup.close()
    assert store.update(record, "2", 30).value == "2"

"""The SQLite store: the contract, and what is special to one file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service_monitor.calls import STOP_GRACE, Stop
from service_monitor.errors import StoreUnavailable
from service_monitor.stores.sqlite import SqliteStore
from service_monitor.timing import now
from tests.store_contract import *  # noqa: F403
from tests.store_contract import MakeStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def label() -> str:
    return "es"


@pytest.fixture
def make_store(path: Path) -> Iterator[MakeStore]:
    opened: list[SqliteStore] = []

    def make(stop: Stop | None = None) -> SqliteStore:
        opened.append(SqliteStore(str(path), stop or Stop()))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.mark.promise(7)
def test_records_of_an_earlier_boot_are_dead(path: Path) -> None:
    """After a reboot the queue would wait for processes that are no more."""
    before = SqliteStore(str(path), Stop(), clock=lambda: 1000.0, boot=lambda: "one")
    before.create("es/a", "1", 100)
    after = SqliteStore(str(path), Stop(), clock=lambda: 10.0, boot=lambda: "two")
    assert after.list("").records == ()
    assert after.create("es/a", "2", 100).created > 1
    before.close()
    after.close()


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
        stores = [SqliteStore(str(tmp_path / f"{turn}.db"), Stop()) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda store: store.list(""), stores))
        for store in stores:
            store.close()


def test_a_corrupt_file_is_an_error(path: Path) -> None:
    """An empty list would be printed as if nobody were up."""
    path.write_bytes(b"not a database" * 100)
    store = SqliteStore(str(path), Stop())
    with pytest.raises(StoreUnavailable, match=r"store\.db"):
        store.list("")


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """A typing error in the path would be a store of one's own."""
    store = SqliteStore(str(tmp_path / "no" / "store.db"), Stop())
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
    stop = Stop()
    store = make_store(stop)
    store.list("")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stop.request(15)
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

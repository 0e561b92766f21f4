"""When a row of the SQLite store is alive."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from service_monitor.errors import StoreRefused
from service_monitor.records import Record
from service_monitor.stores.sqlite.rows import (
    SCHEMA,
    SLACK,
    UNSTATED_TTL,
    Boot,
    Row,
    delete_ephemeral,
    delete_row,
    is_current,
    make_current,
    read_rows,
    write_durable,
    write_span,
)

RECORD = Record("k", "{}", 1, 1)
HERE, OTHER = "boot-1", "boot-2"
NOW = 1000.0


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(SCHEMA)
    yield db
    db.close()


def write(db: sqlite3.Connection, key: str, created: int, boot: str = HERE) -> None:
    values = (key, "{}", created, created, NOW + 15, boot)
    db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", values)


@pytest.mark.parametrize(
    ("left", "ttl", "boot", "expired"),
    [
        (-1.0, 15.0, HERE, True),
        (0.0, 15.0, HERE, True),
        (0.01, 15.0, HERE, False),
        (15.0, 15.0, HERE, False),
        (15.0 + SLACK / 2, 15.0, HERE, False),
        (15.0 + SLACK * 2, 15.0, HERE, True),
        (15.0 + SLACK * 2, 15.0, OTHER, True),
        (9e6, None, HERE, False),
        (-1.0, None, HERE, True),
        (UNSTATED_TTL, None, OTHER, False),
        (UNSTATED_TTL + SLACK * 2, None, OTHER, True),
    ],
)
def test_the_clock_alone_tells_what_has_expired(
    left: float, ttl: float | None, boot: str, expired: bool
) -> None:
    """A dead holder would block all others, or a live one lose its lease."""
    row = Row(RECORD, NOW + left, boot, ttl, True)
    assert row.expired(Boot(HERE, True), NOW, NOW) is expired


def test_a_durable_row_lives_in_every_boot(db: sqlite3.Connection) -> None:
    """After a reboot a label would have forgotten its members."""
    write_durable(db, RECORD)
    (row,) = read_rows(db, RECORD.key)
    assert row.record == RECORD
    assert read_rows(db, durable=False) == []
    for clock in (0.0, NOW, 9e9):
        assert row.alive(Boot(HERE, True), clock, clock)
        assert not row.expired(Boot(OTHER, False), clock, clock)


def test_an_expired_row_takes_no_durable_one_with_it(db: sqlite3.Connection) -> None:
    """A member would be forgotten because of an old record of the same key."""
    write_durable(db, RECORD)
    write(db, RECORD.key, 2)
    delete_ephemeral(db, RECORD.key)
    assert [row.record for row in read_rows(db)] == [RECORD]
    delete_row(db, RECORD.key)
    assert read_rows(db) == []


def test_rounding_expires_nothing() -> None:
    """A lease would be gone in the moment in which it was written."""
    row = Row(RECORD, 15.0 + SLACK, HERE, 15.0, True)
    assert not row.expired(Boot(HERE, True), 0.0, 0.0)


def test_what_an_older_release_wrote_in_this_boot_lives() -> None:
    """A lease that is longer than the ttl that is assumed would be for two."""
    row = Row(RECORD, NOW + UNSTATED_TTL * 9, HERE, None, False)
    assert row.alive(Boot(HERE, True), NOW, NOW)
    assert not row.alive(Boot(OTHER, True), NOW, NOW)


def test_a_pause_while_reading_expires_nothing() -> None:
    """A lease that was renewed during the pause would count as dead."""
    row = Row(RECORD, NOW + 30, HERE, 15.0, True)
    assert row.expired(Boot(HERE, True), NOW, NOW)
    assert not row.expired(Boot(HERE, True), NOW, NOW + 20)
    assert not row.expired(Boot(HERE, True), NOW, NOW + 60)


@pytest.mark.parametrize(
    ("wrote", "written", "here", "alive"),
    [
        (HERE, True, True, True),
        (OTHER, True, True, False),
        (OTHER, False, True, True),
        (OTHER, True, False, True),
        (OTHER, False, False, True),
    ],
)
def test_a_row_of_another_boot_is_dead_if_both_boots_are_genuine(
    wrote: str, written: bool, here: bool, alive: bool
) -> None:
    """After a reboot all would wait for leases of before, or containers take them."""
    row = Row(RECORD, NOW + 10, wrote, 15.0, written)
    assert row.alive(Boot(HERE, here), NOW, NOW) is alive
    assert not row.alive(Boot(HERE, here), NOW + 10, NOW + 10)


def test_rows_come_in_the_order_of_their_creation(db: sqlite3.Connection) -> None:
    """The queue would be another one."""
    for created, key in (3, "a"), (1, "b"), (2, "c"):
        write(db, key, created)
    write_span(db, "a", NOW + 15, 15.0, Boot(HERE, True))
    write_span(db, "b", NOW + 15, 9.0, Boot(HERE, False))
    write_span(db, "c", NOW + 14, 15.0, Boot(HERE, True))  # of a deadline before
    assert read_rows(db) == [
        Row(Record("b", "{}", 1, 1), NOW + 15, HERE, 9.0, False),
        Row(Record("c", "{}", 2, 2), NOW + 15, HERE, None, False),
        Row(Record("a", "{}", 3, 3), NOW + 15, HERE, 15.0, True),
    ]
    assert [row.record.created for row in read_rows(db, "c")] == [2]
    assert read_rows(db, "d") == []


def test_a_deleted_row_leaves_nothing_behind(db: sqlite3.Connection) -> None:
    """The next record of that key would have the ttl of another one."""
    for created, key in (1, "a"), (2, "b"):
        write(db, key, created)
        write_span(db, key, NOW + 15, 15.0, Boot(HERE, True))
    delete_row(db, "a")
    delete_row(db, "never there")
    assert [row.record.key for row in read_rows(db)] == ["b"]
    assert db.execute("SELECT key, ttl FROM spans").fetchall() == [("b", 15.0)]


def test_a_boot_that_comes_back_is_another_kernel(db: sqlite3.Connection) -> None:
    """Two kernels would each take the lease, as each calls the other's rows dead."""
    first, second = Boot(HERE, True), Boot(OTHER, True)
    assert not is_current(db, "/s.db", first)
    make_current(db, first)
    assert is_current(db, "/s.db", first)
    assert not is_current(db, "/s.db", second)
    make_current(db, second)
    make_current(db, second)
    assert is_current(db, "/s.db", second)
    with pytest.raises(StoreRefused, match="another kernel has used") as refused:
        is_current(db, "/s.db", first)
    assert str(refused.value) == (
        "/s.db: another kernel has used this file since this one began to: a virtual "
        "machine, a sandbox, or another machine. SQLite is for one kernel: give each a "
        "file of its own, or use etcd"
    )
    make_current(db, Boot("boot-3", True))
    for earlier in first, second:
        with pytest.raises(StoreRefused):
            is_current(db, "/s.db", earlier)


def test_a_boot_id_that_may_be_a_containers_proves_nothing(
    db: sqlite3.Connection,
) -> None:
    """Containers of one machine would refuse each other."""
    for name in HERE, OTHER, HERE:
        assert is_current(db, "/s.db", Boot(name, False))

"""One SQLite file as the store: one machine, any number of processes and containers.

Deadlines are seconds of the machine's CLOCK_BOOTTIME, so no wall clock is involved;
`sqlite_rows` says which records are alive. One counter orders everything, so no number
is ever used twice, also not after a deletion.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.sqlite import machine
from service_monitor.stores.sqlite import rows as sqlite_rows
from service_monitor.stores.sqlite.errors import failure
from service_monitor.stores.sqlite.rows import Boot, Row, read_rows
from service_monitor.timing import now

_POLL = 0.1
"""Seconds between two looks while waiting."""

_BUSY = 2.0
"""Seconds to wait for another writer's transaction, which takes milliseconds."""


class SqliteStore:
    """The store primitives on one file; opened at the first use, made if missing."""

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        clock: Callable[[], float] = machine.clock,
        boot: Callable[[], str] = machine.boot_id,
        genuine: Callable[[str], bool] = machine.is_genuine,
    ) -> None:
        clock()  # a machine that cannot tell it has no use for this store
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._boot = Boot(name := boot(), genuine(name))
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def create(self, key: str, value: str, ttl: float) -> Record:
        with self._transaction() as db:
            if found := self._get(db, key):
                raise KeyExists(found)
            revision, deadline = self._next(db), self._clock() + ttl
            db.execute(
                "REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)",
                (key, value, revision, revision, deadline, self._boot.name),
            )
            sqlite_rows.write_span(db, key, deadline, ttl, self._boot)
        return Record(key, value, revision, revision)

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        with self._transaction() as db:
            found = self._same(db, record)
            if found.version != record.version:
                if found.value == value:
                    return found  # an earlier try of this very call came through
                raise Conflict(found)
            revision = self._next(db)
            db.execute(
                "UPDATE records SET value = ?, version = ? WHERE key = ?",
                (value, revision, record.key),
            )
            if ttl is not None:
                self._live(db, record.key, ttl)
        return Record(record.key, value, record.created, revision)

    def keep_alive(self, record: Record, ttl: float) -> Record:
        with self._transaction() as db:
            found = self._same(db, record)
            if found.version != record.version:
                raise Conflict(found)
            self._live(db, record.key, ttl)
        return record

    def delete(self, record: Record) -> None:
        with self._transaction() as db:
            found = self._get(db, record.key)
            if found is None or found.created != record.created:
                return
            if found.version != record.version:
                raise Conflict(found)
            sqlite_rows.delete_row(db, record.key)

    def list(self, prefix: str) -> Snapshot:
        records = (row.record for row in self._look())
        return Snapshot(tuple(r for r in records if _under(prefix, r)))

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        before = {(r.created, r.version) for r in since.records if _under(prefix, r)}
        ids = {created for created, _ in before}
        deadline = now() + timeout
        while True:
            records = self.list(prefix).records
            if gone and not ids <= {r.created for r in records}:
                return
            if not gone and before != {(r.created, r.version) for r in records}:
                return
            left = deadline - now()
            if left <= 0:
                return
            self._bounds.stop.wait(min(_POLL, left))
            self._bounds.stop.check()

    def prepare(self, ttl: float) -> None:
        """Do nothing: a ttl goes with the write."""

    def time_left(self, record: Record) -> float:
        for row in self._look(record.key):
            if row.record.created == record.created:
                return max(0.0, row.deadline - self._clock())
        return 0.0

    def local_address(self) -> str:
        return "127.0.0.1"  # one machine, by definition

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _get(self, db: sqlite3.Connection, key: str) -> Record | None:
        clock = self._clock()
        rows = read_rows(db, key)
        live = [row.record for row in rows if row.alive(self._boot, clock, clock)]
        return live[0] if live else None

    def _same(self, db: sqlite3.Connection, record: Record) -> Record:
        found = self._get(db, record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _live(self, db: sqlite3.Connection, key: str, ttl: float) -> None:
        deadline = self._clock() + ttl
        db.execute(
            "UPDATE records SET deadline = ?, boot = ? WHERE key = ?",
            (deadline, self._boot.name, key),
        )
        sqlite_rows.write_span(db, key, deadline, ttl, self._boot)

    def _next(self, db: sqlite3.Connection) -> int:
        db.execute("UPDATE revision SET n = n + 1")
        row = db.execute("SELECT n FROM revision").fetchone()
        return int(row[0])

    def _look(self, key: str | None = None) -> tuple[Row, ...]:
        """Read the live rows: all, or that of one key."""
        before = self._clock()
        with self._open() as db:
            rows = read_rows(db, key)
            current = sqlite_rows.is_current(db, self._path, self._boot)
        if not current:  # to call what others wrote dead, it has to be
            before = self._clock()
            with self._transaction() as db:
                rows = read_rows(db, key)
        after = self._clock()
        return tuple(row for row in rows if row.alive(self._boot, before, after))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write alone.

        IMMEDIATE, for a deferred transaction that turns into a writer fails at once
        when another one writes, in spite of the busy timeout.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                if not sqlite_rows.is_current(db, self._path, self._boot):
                    sqlite_rows.make_current(db, self._boot)
                clock = self._clock()
                for row in read_rows(db):
                    if row.expired(self._boot, clock, clock):
                        sqlite_rows.delete_row(db, row.record.key)
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection and self._identity() != self._opened:
                self.close()  # its records are not those that others see
                raise StoreUnavailable(f"{self._path}: the file was replaced")
            busy = max(0.0, min(_BUSY, self._bounds.time_left()))
            try:
                db = self._connection or self._connect(busy)
                db.execute(f"PRAGMA busy_timeout = {int(busy * 1000)}")
                yield db
            except sqlite3.Error as error:
                self.close()
                raise failure(self._path, error) from error

    def _connect(self, busy: float) -> sqlite3.Connection:
        self._connection = db = sqlite3.connect(
            self._path, timeout=busy, isolation_level=None, check_same_thread=False
        )
        self._use_wal(db, busy)
        db.executescript(f"BEGIN IMMEDIATE; {sqlite_rows.SCHEMA} COMMIT;")
        self._opened = self._identity()
        return db

    def _use_wal(self, db: sqlite3.Connection, busy: float) -> None:
        """Switch the journal; where two make the file at once no busy timeout helps."""
        deadline = now() + busy
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or now() >= deadline:
                    raise
            self._bounds.stop.wait(0.01)

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _under(prefix: str, record: Record) -> bool:
    if prefix.endswith("/") or not prefix:
        return record.key.startswith(prefix)
    return record.key == prefix

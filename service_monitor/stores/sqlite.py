"""One SQLite file as the store: one machine, any number of processes and containers.

Deadlines are CLOCK_BOOTTIME seconds beside the boot id, so no wall clock is involved: a
record of an earlier boot is dead. One counter orders everything, so no number is ever
used twice, also not after a deletion.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service_monitor.calls import Stop
from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    StoreUnavailable,
)
from service_monitor.records import Record, Snapshot
from service_monitor.stores.sqlite_errors import failure
from service_monitor.timing import now

_POLL = 0.1
"""Seconds between two looks while waiting."""

_BUSY = 2.0
"""Seconds to wait for another writer's transaction, which takes milliseconds."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS revision (n INTEGER NOT NULL);
INSERT INTO revision SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revision);
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL, deadline REAL NOT NULL, boot TEXT NOT NULL
) WITHOUT ROWID;
"""
_FIELDS = "key, value, created, version"


def boot_id() -> str:
    """Return what names this boot of this kernel, the same in every container."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class SqliteStore:
    """The store primitives on one file; opened at the first use, made if missing."""

    def __init__(
        self,
        path: str,
        stop: Stop,
        clock: Callable[[], float] = now,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._path = path
        self._stop = stop
        self._clock = clock
        self._boot = boot()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def create(self, key: str, value: str, ttl: float) -> Record:
        with self._transaction() as db:
            if found := self._get(db, key):
                raise KeyExists(found)
            revision = self._next(db)
            db.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                (key, value, revision, revision, self._clock() + ttl, self._boot),
            )
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
            db.execute("DELETE FROM records WHERE key = ?", (record.key,))

    def list(self, prefix: str) -> Snapshot:
        with self._open() as db:
            rows = db.execute(
                f"SELECT {_FIELDS} FROM records WHERE boot = ? AND deadline > ?"
                " ORDER BY created",
                (self._boot, self._clock()),
            ).fetchall()
        records = (Record(*row) for row in rows)
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
            self._stop.wait(min(_POLL, left))
            self._stop.check()

    def prepare(self, ttl: float) -> None:
        """Do nothing: a ttl goes with the write."""

    def time_left(self, record: Record) -> float:
        with self._open() as db:
            row = db.execute(
                "SELECT deadline FROM records WHERE key = ? AND created = ?"
                " AND boot = ?",
                (record.key, record.created, self._boot),
            ).fetchone()
        return max(0.0, row[0] - self._clock()) if row else 0.0

    def local_address(self) -> str:
        return "127.0.0.1"  # one machine, by definition

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _get(self, db: sqlite3.Connection, key: str) -> Record | None:
        row = db.execute(
            f"SELECT {_FIELDS} FROM records WHERE key = ?", (key,)
        ).fetchone()
        return Record(*row) if row else None

    def _same(self, db: sqlite3.Connection, record: Record) -> Record:
        found = self._get(db, record.key)
        if found is None or found.created != record.created:
            raise RecordGone(record.key)
        return found

    def _live(self, db: sqlite3.Connection, key: str, ttl: float) -> None:
        db.execute(
            "UPDATE records SET deadline = ? WHERE key = ?", (self._clock() + ttl, key)
        )

    def _next(self, db: sqlite3.Connection) -> int:
        db.execute("UPDATE revision SET n = n + 1")
        row = db.execute("SELECT n FROM revision").fetchone()
        return int(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write alone.

        IMMEDIATE, for a deferred transaction that turns into a writer fails at once
        when another one writes, in spite of the busy timeout.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute(
                    "DELETE FROM records WHERE boot != ? OR deadline <= ?",
                    (self._boot, self._clock()),
                )
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
            busy = max(0.0, min(_BUSY, self._stop.time_left()))
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
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
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
            self._stop.wait(0.01)

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

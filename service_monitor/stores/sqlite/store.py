"""One SQLite file as the store: one machine, any number of processes and containers.

Deadlines are seconds of the machine's CLOCK_BOOTTIME, so no wall clock is involved;
`rows` says which records are alive. One counter orders everything, so no number is ever
used twice, also not after a deletion.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import CALL_TIMEOUT, matches
from service_monitor.stores.primitive import primitive
from service_monitor.stores.sqlite import machine
from service_monitor.stores.sqlite import rows as sqlite_rows
from service_monitor.stores.sqlite.database import Database
from service_monitor.stores.sqlite.rows import Boot, Row, read_rows
from service_monitor.timing import now

_POLL = 0.1
"""Seconds between two looks while waiting."""


class SqliteStore:
    """The primitives of `Store` on one file, each within `call_timeout` seconds.

    That is for other writers, whose transactions take milliseconds; a disk that hangs
    is not bounded. `clock`, `boot` and `genuine` are the machine's, as in `machine`.
    """

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        clock: Callable[[], float] = machine.clock,
        boot: Callable[[], str] = machine.boot_id,
        genuine: Callable[[str], bool] = machine.is_genuine,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        clock()  # a machine that cannot tell it has no use for this store
        self._bounds = bounds
        self._call_timeout = call_timeout
        self._clock = clock
        self._boot = Boot(name := boot(), genuine(name))
        self._database = Database(path, self._boot, clock, bounds)

    @primitive
    def create(self, key: str, value: str, ttl: float | None) -> Record:
        with self._database.transaction() as db:
            if found := self._get(db, key):
                raise KeyExists(found)
            sqlite_rows.delete_row(db, key)  # of an earlier boot
            revision = self._next(db)
            record = Record(key, value, revision, revision)
            if ttl is None:
                sqlite_rows.write_durable(db, record)
            else:
                end = self._clock() + ttl
                sqlite_rows.write_ephemeral(db, record, end, ttl, self._boot)
        return record

    @primitive
    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        with self._database.transaction() as db:
            found = self._same(db, record)
            if found.version != record.version:
                if found.value == value:
                    return found  # an earlier try of this very call came through
                raise Conflict(found)
            revision = self._next(db)
            for table in ("records", "durable"):  # one of them has it
                db.execute(
                    f"UPDATE {table} SET value = ?, version = ? WHERE key = ?",
                    (value, revision, record.key),
                )
            if ttl is not None:
                sqlite_rows.make_ephemeral(db, record.key)
                self._live(db, record.key, ttl)
        return Record(record.key, value, record.created, revision)

    @primitive
    def keep_alive(self, record: Record, ttl: float) -> Record:
        with self._database.transaction() as db:
            found = self._same(db, record)
            if found.version != record.version:
                raise Conflict(found)
            self._live(db, record.key, ttl)
        return record

    @primitive
    def delete(self, record: Record) -> None:
        with self._database.transaction() as db:
            found = self._get(db, record.key)
            if found is None or found.created != record.created:
                return
            if found.version != record.version:
                raise Conflict(found)
            sqlite_rows.delete_row(db, record.key)

    @primitive
    def list(self, prefix: str) -> Snapshot:
        return Snapshot(tuple(row.record for row in self._look(prefix)))

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        before = {
            (r.created, r.version) for r in since.records if matches(prefix, r.key)
        }
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

    @primitive
    def time_left(self, record: Record) -> float:
        for row in self._look(record.key):
            if row.record.created == record.created:
                return max(0.0, row.deadline - self._clock())
        return 0.0

    def local_address(self) -> str:
        return "127.0.0.1"  # one machine, by definition

    def close(self) -> None:
        self._database.close()

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

    def _look(self, prefix: str) -> tuple[Row, ...]:
        """Read the live rows that a prefix means."""
        before = self._clock()
        with self._database.opened() as db:
            rows = read_rows(db, prefix)
            current = sqlite_rows.is_current(db, self._database.path, self._boot)
        if not current:  # to call what others wrote dead, it has to be
            before = self._clock()
            with self._database.transaction() as db:
                rows = read_rows(db, prefix)
        after = self._clock()
        return tuple(row for row in rows if row.alive(self._boot, before, after))

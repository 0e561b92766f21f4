"""The SQLite file: its connection, and transactions that wait for other writers."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service_monitor.errors import StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.net.lacks import lack_in
from service_monitor.stores.sqlite.errors import failure
from service_monitor.stores.sqlite.rows import (
    SCHEMA,
    Boot,
    delete_ephemeral,
    is_current,
    make_current,
    read_rows,
)
from service_monitor.timing import now

_RETRY = 0.01
"""Seconds before the journal is tried again, for which SQLite does not wait."""


class Database:
    """One file, opened at the first use, made if missing.

    Other writers, of this process too, are waited for `bounds.time_left()` seconds.
    Raises `StoreError` and `LocalLack`.
    """

    def __init__(
        self, path: str, boot: Boot, clock: Callable[[], float], bounds: Bounds
    ) -> None:
        self.path = path
        self._boot = boot
        self._clock = clock
        self._bounds = bounds
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write alone; what has expired is deleted first.

        IMMEDIATE, for a deferred transaction that turns into a writer fails at once
        when another one writes, in spite of the busy timeout.
        """
        with self.opened() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                if not is_current(db, self.path, self._boot):
                    make_current(db, self._boot)
                clock = self._clock()
                for row in read_rows(db, durable=False):
                    if row.expired(self._boot, clock, clock):
                        delete_ephemeral(db, row.record.key)
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to this thread alone."""
        with self._alone():
            if self._connection and self._identity() != self._opened:
                self.close()  # its records are not those that others see
                raise StoreUnavailable(f"{self.path}: the file was replaced")
            try:
                db = self._connection or self._connect()
                db.execute(f"PRAGMA busy_timeout = {int(self._seconds() * 1000)}")
                yield db
            except sqlite3.ProgrammingError:  # a mistake of ours
                self.close()
                raise
            except (sqlite3.Error, MemoryError) as error:
                self.close()
                raise failure(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._seconds()):
            raise StoreUnavailable(f"{self.path}: no answer in time")
        try:
            yield
        finally:
            self._lock.release()

    def _seconds(self) -> float:
        return max(0.0, self._bounds.time_left())

    def _connect(self) -> sqlite3.Connection:
        self._connection = db = sqlite3.connect(
            self.path,
            timeout=self._seconds(),
            isolation_level=None,
            check_same_thread=False,
        )
        self._use_wal(db)
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        self._opened = self._identity()
        return db

    def _use_wal(self, db: sqlite3.Connection) -> None:
        """Switch the journal; where two make the file at once no busy timeout helps."""
        deadline = now() + self._seconds()
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or now() >= deadline:
                    raise
            self._bounds.stop.wait(_RETRY)

    def _identity(self) -> tuple[int, int] | None:
        """Return what names the file that is there now; None if there is none."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            if lack := lack_in(error):
                raise lack from error
            return None
        return status.st_dev, status.st_ino

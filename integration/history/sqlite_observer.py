"""Observe an SQLite file: an audit table of ours in it, which triggers fill."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from integration.history.observer import CALL, POLL, Key, Observer, read, split
from integration.history.recorder import Change
from service_monitor.timing import now

GRACE = 0.1  # seconds for a write that began before a deadline to be committed


_AUDIT = """
CREATE TABLE IF NOT EXISTS history_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, key TEXT, value TEXT,
    created INTEGER, version INTEGER, deadline REAL
);
CREATE TRIGGER IF NOT EXISTS history_insert AFTER INSERT ON records BEGIN
    INSERT INTO history_audit (what, key, value, created, version, deadline) VALUES
    ('put', NEW.key, NEW.value, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_update AFTER UPDATE OF value, version ON records
BEGIN
    INSERT INTO history_audit (what, key, value, created, version, deadline) VALUES
    ('put', NEW.key, NEW.value, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_extend AFTER UPDATE OF deadline ON records BEGIN
    INSERT INTO history_audit (what, key, created, version, deadline) VALUES
    ('extend', NEW.key, NEW.created, NEW.version, NEW.deadline);
END;
CREATE TRIGGER IF NOT EXISTS history_delete AFTER DELETE ON records BEGIN
    INSERT INTO history_audit (what, key, created, version, deadline) VALUES
    ('gone', OLD.key, OLD.created, OLD.version, OLD.deadline);
END;
"""


class SqliteObserver(Observer):
    """Reads what triggers wrote; a record is dead at its deadline, swept or not."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._path = unquote(url.removeprefix("sqlite://"))

    def _open(self) -> None:
        # The product has made its tables by now: see `Rig`.
        self._db = sqlite3.connect(
            self._path, timeout=CALL, isolation_level=None, check_same_thread=False
        )
        self._db.executescript(f"BEGIN IMMEDIATE; {_AUDIT} COMMIT;")
        row = self._db.execute("SELECT max(id) FROM history_audit").fetchone()
        self._last = int(row[0] or 0)
        self._deadlines: dict[Key, float] = {}

    def _work(self) -> list[Callable[[], None]]:
        return [self._poll]

    def _poll(self) -> None:
        began = now()
        rows = self._db.execute(
            "SELECT id, what, key, value, created, version, deadline"
            " FROM history_audit WHERE id > ? ORDER BY id",
            (self._last,),
        ).fetchall()
        at = now()
        with self.changed:
            before = len(self.changes)
            for n, row in enumerate(rows):
                self._row(row, rows[n + 1 : n + 2], at)
                self._last = row[0]
            # Where nobody writes nobody sweeps; readers count it as gone already.
            for key, deadline in list(self._deadlines.items()):
                if deadline < began - GRACE:
                    self._gone(key, at, deadline)
            self._verified = began
            if len(self.changes) > before:
                self.changed.notify_all()
        self._closing.wait(POLL)

    def _row(self, row: Any, following: list[Any], at: float) -> None:
        _, what, path, text, created, version, deadline = row
        key = split(path)
        if key is None:
            return
        if what == "gone":
            known = self.live.get(key)
            if known and known.created == created:
                self._gone(key, at, deadline)
            return
        known = self.live.get(key)
        if what == "put" or (known and known.created == created):
            self._deadlines[key] = deadline
        if what == "put":
            for next_ in following:  # the second statement of the same write
                if next_[1] == "extend" and next_[2] == path:
                    deadline = next_[6]
            value = read(text)
            change = Change(
                self._verified, at, *key, created, version, value, None, deadline
            )
            self._note(change)

    def _gone(self, key: Key, at: float, deadline: float) -> None:
        known, after = self.live[key], self._verified
        self._deadlines.pop(key, None)
        expired: bool | None = deadline <= after
        if not expired and deadline > at:
            expired = False
        elif not expired:
            expired = None
        self._note(
            Change(
                deadline if expired else after,
                at,
                *key,
                known.created,
                known.version,
                None,
                expired,
                deadline,
            )
        )

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._db.close()

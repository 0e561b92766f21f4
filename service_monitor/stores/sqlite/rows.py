"""When a row of the SQLite store is alive: pure, by the machine's clock and its boots.

1. A row lives while its deadline is ahead, and no further than its ttl: what is further
   was written before the clock began anew. That needs no boot id.
2. A row of another boot of this machine is dead at once, if both boot ids are genuine.
   A boot id that may be a container's own proves nothing.
3. Only what rule 1 calls dead is deleted: a boot id alone never means that.
4. A durable row lives until it is deleted, whatever the clock and the boot.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from service_monitor.errors import StoreRefused
from service_monitor.records import Record
from service_monitor.stores.base import is_everything_below

SLACK = 0.1
"""Seconds by which a deadline may be further away than the ttl: rounding."""
UNSTATED_TTL = 300.0
"""Seconds that count as the ttl of what an older release wrote in another boot."""

# An older release may use the file at the same time. It knows the table `records`, and
# writes all its columns by position; so what is new has a table of its own, which is
# right as long as it has the row's deadline. It deletes from `records` what it takes
# for dead; so durable rows stand where it does not look.
SCHEMA = """
CREATE TABLE IF NOT EXISTS revision (n INTEGER NOT NULL);
INSERT INTO revision SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revision);
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL, deadline REAL NOT NULL, boot TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spans (
    key TEXT PRIMARY KEY, deadline REAL NOT NULL, ttl REAL NOT NULL,
    genuine INTEGER NOT NULL
) WITHOUT ROWID;
DELETE FROM spans WHERE key NOT IN (SELECT key FROM records);
CREATE TABLE IF NOT EXISTS durable (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS boots (
    n INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL UNIQUE
);
"""
_EPHEMERAL = """
SELECT r.key, r.value, r.created AS created, r.version, r.deadline, r.boot, s.ttl,
    s.genuine
FROM records AS r LEFT JOIN spans AS s ON s.key = r.key AND s.deadline = r.deadline
"""
_DURABLE = "SELECT key, value, created, version, 9e999, '', 9e999, 0 FROM durable AS r"


@dataclass(frozen=True)
class Boot:
    """What is known here of the boot that this process runs in."""

    name: str
    genuine: bool


@dataclass(frozen=True)
class Row:
    """A record as the file has it, alive or dead; no ttl if an older release wrote.

    The deadline and the ttl of a durable one are infinite.
    """

    record: Record
    deadline: float
    boot: str
    ttl: float | None
    genuine: bool

    def expired(self, boot: Boot, before: float, after: float) -> bool:
        """Tell whether the clock alone proves it dead: rules 1 and 4.

        The clock is looked at before the row was read, and after: a process may be
        paused in between, and others renew meanwhile.
        """
        if self.deadline == math.inf:
            return False
        if self.deadline <= before:
            return True
        if self.ttl is None and self.boot == boot.name:
            return False
        ttl = UNSTATED_TTL if self.ttl is None else self.ttl
        return self.deadline - after > ttl + SLACK

    def alive(self, boot: Boot, before: float, after: float) -> bool:
        """Tell whether it counts: rules 1, 2 and 4."""
        earlier = self.genuine and boot.genuine and self.boot != boot.name
        return not earlier and not self.expired(boot, before, after)


def read_rows(
    db: sqlite3.Connection, prefix: str = "", *, durable: bool = True
) -> list[Row]:
    """Read the rows that a prefix means, by `created`; without durable ones if told."""
    where, values = "", list[str]()
    if prefix and is_everything_below(prefix):
        where, values = " WHERE r.key > ? AND r.key < ?", [prefix, f"{prefix[:-1]}0"]
    elif prefix:
        where, values = " WHERE r.key = ?", [prefix]
    # One statement: between two of them a row may change its table.
    select = f"{_EPHEMERAL}{where}"
    if durable:
        select, values = f"{select} UNION ALL {_DURABLE}{where}", values * 2
    found = db.execute(f"{select} ORDER BY created", values).fetchall()
    return [
        Row(Record(key, value, created, version), deadline, boot, ttl, bool(genuine))
        for key, value, created, version, deadline, boot, ttl, genuine in found
    ]


def write_durable(db: sqlite3.Connection, record: Record) -> None:
    """Write a row that stays until it is deleted."""
    values = record.key, record.value, record.created, record.version
    db.execute("INSERT INTO durable VALUES (?, ?, ?, ?)", values)


def write_ephemeral(
    db: sqlite3.Connection, record: Record, deadline: float, ttl: float, boot: Boot
) -> None:
    """Write a row that lives until its deadline."""
    values = record.key, record.value, record.created, record.version
    row = *values, deadline, boot.name
    db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
    write_span(db, record.key, deadline, ttl, boot)


def make_ephemeral(db: sqlite3.Connection, key: str) -> None:
    """Let a durable row of that key be one whose deadline is still to be set."""
    db.execute(
        "REPLACE INTO records SELECT key, value, created, version, 0, '' FROM durable "
        "WHERE key = ?",
        (key,),
    )
    db.execute("DELETE FROM durable WHERE key = ?", (key,))


def write_span(
    db: sqlite3.Connection, key: str, deadline: float, ttl: float, boot: Boot
) -> None:
    """Note the ttl of the row of that key, and whose boot it names."""
    db.execute(
        "REPLACE INTO spans VALUES (?, ?, ?, ?)", (key, deadline, ttl, boot.genuine)
    )


def delete_row(db: sqlite3.Connection, key: str) -> None:
    """Delete the row of that key, if there is one."""
    delete_ephemeral(db, key)
    db.execute("DELETE FROM durable WHERE key = ?", (key,))


def delete_ephemeral(db: sqlite3.Connection, key: str) -> None:
    """Delete the row of that key, if there is one with a deadline."""
    db.execute("DELETE FROM records WHERE key = ?", (key,))
    db.execute("DELETE FROM spans WHERE key = ?", (key,))


def is_current(db: sqlite3.Connection, path: str, boot: Boot) -> bool:
    """Tell whether this boot is the last one that used the file.

    A reboot has a new boot id, so the last one never comes back. If an earlier one is
    still there, two kernels share the file. Raises `StoreRefused` then.
    """
    if not boot.genuine:
        return True
    boots = [row[0] for row in db.execute("SELECT boot FROM boots ORDER BY n")]
    if boot.name in boots[:-1]:
        raise StoreRefused(
            f"{path}: another kernel has used this file since this one began to: a "
            "virtual machine, a sandbox, or another machine. SQLite is for one "
            "kernel: give each a file of its own, or use etcd"
        )
    return boots[-1:] == [boot.name]


def make_current(db: sqlite3.Connection, boot: Boot) -> None:
    """Note that this boot uses the file: all others have ended, or are refused."""
    db.execute("INSERT OR IGNORE INTO boots (boot) VALUES (?)", (boot.name,))

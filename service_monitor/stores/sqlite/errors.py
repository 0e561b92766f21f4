"""What SQLite's errors mean: an outage, a refusal, or what this machine lacks."""

from __future__ import annotations

import os
import sqlite3

from service_monitor.errors import (
    LocalLack,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.lacks import lack_in

_NOT_OURS = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_NOT_A_STORE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_ERROR,  # such as "no such column"
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
}


def failure(path: str, error: sqlite3.Error | MemoryError) -> StoreError | LocalLack:
    """Say what an error with this database is to the caller."""
    # "unable to open database file" is all that it says of a limit of open files.
    if lack := lack_in(error, unclear="open" in str(error)):
        return lack
    code = getattr(error, "sqlite_errorcode", 0)
    moved = code == sqlite3.SQLITE_READONLY_DBMOVED  # the next look opens the new file
    if (code & 0xFF in _NOT_OURS and not moved) or _is_closed_to_us(path, code):
        return StoreRefused(
            f"{path}: {error}: let this user write the file and its directory, on a "
            "file system that is not mounted read-only"
        )
    if code & 0xFF in _NOT_A_STORE:
        return StoreRefused(
            f"{path}: {error}: is it a store of ours, and whole? Name another file, "
            "or move this one away: what is needed is written anew"
        )
    return StoreUnavailable(f"{path}: {error}")


def _is_closed_to_us(path: str, code: int) -> bool:
    if code & 0xFF != sqlite3.SQLITE_CANTOPEN:
        return False
    folder = os.path.dirname(path)
    there = [each for each in (path, folder) if os.path.exists(each)]
    return not all(os.access(each, os.R_OK | os.W_OK) for each in there)

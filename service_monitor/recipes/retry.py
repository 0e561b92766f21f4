"""Look again when a record has changed between a look and our write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from service_monitor.errors import Conflict, RecordGone, StoreUnavailable

T = TypeVar("T")

TRIES = 4
"""Looks at a record that changes each time before it counts as trouble."""


class Changed(Exception):
    """What was looked at is no longer so: look again."""


def look_again(attempt: Callable[[], T], key: str, tries: int = TRIES) -> T:
    """Repeat an attempt, a look and a write, until nothing changed in between.

    It says so by `Changed`, `Conflict` or `RecordGone`. Raises `StoreUnavailable` after
    so many `tries`, and what else the attempt raises.
    """
    for _ in range(tries):
        with suppress(Changed, Conflict, RecordGone):
            return attempt()
    raise StoreUnavailable(f"{key} changes between any two looks")

"""Look again where a record changed between a look and the write that rests on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from service_monitor.errors import Conflict, RecordGone, StoreUnavailable

T = TypeVar("T")

TRIES = 4
"""Looks at a record that changes each time before it counts as trouble."""


def look_again(attempt: Callable[[], T | None], key: str, tries: int = TRIES) -> T:
    """Repeat an attempt, a look and a write, until it returns something.

    None, `Conflict` and `RecordGone` mean that the record under `key` changed in
    between. Raises `StoreUnavailable` after so many `tries`, and what else the attempt
    raises.
    """
    for _ in range(tries):
        with suppress(Conflict, RecordGone):
            outcome = attempt()
            if outcome is not None:
                return outcome
    raise StoreUnavailable(f"{key} changes between any two looks")

"""How often to look at DynamoDB, which wakes nobody: pure."""

from __future__ import annotations

from service_monitor.records import Snapshot
from service_monitor.stores.base import is_everything_below

FAST, SLOW, SLOWEST = 0.25, 2.0, 8.0
"""Seconds between two looks while waiting, by the number of records ahead."""
MANY = 8
"""From so many on it is the slowest: one's caller lists again sooner than that."""


def interval(prefix: str, since: Snapshot, timeout: float) -> float:
    """Return the seconds between two looks while one waits for `prefix`.

    The more records come before the one waited for, the later can it matter. So however
    many wait, there are some ten looks a second in all. Who waits for a record that is
    not there, such as an idle `watch`, or for several, looks some times in its timeout.
    """
    for ahead, record in enumerate(since.records):
        if record.key == prefix:
            return min(SLOW, FAST * 2**ahead) if ahead < MANY else SLOWEST
    if is_everything_below(prefix):
        return max(FAST, min(SLOW, timeout / 4))
    return max(FAST, min(SLOWEST, timeout / 2.5))

"""Durations, and the one clock that deadlines are counted on."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(ms|s|m|h|d|)", re.ASCII)
SHORTEST, LONGEST = 0.001, 365 * 86400.0


def now() -> float:
    """Return seconds on CLOCK_BOOTTIME: no wall clock, and it counts a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def timestamp() -> str:
    """Return the wall clock in RFC 3339, for people only: no decision rests on it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_duration(text: str) -> float:
    """Read `30`, `30s`, `1.5s`, `250ms`, `5m`, `2h` or `1d` as seconds.

    Raises ValueError for anything else, and for less than 1ms or more than 365d; its
    message follows the quoted text.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a duration: write 30, 30s, 250ms, 5m or 2h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError("is out of range: 1ms to 365d")
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds the way people read them: 0.25 s, 12 s, 4 min 5 s, 2 h 3 min."""
    seconds = max(0.0, seconds)
    if seconds < 9.995:
        return f"{round(seconds, 2 if seconds >= 0.1 else 3):g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next(i for i, (number, _) in enumerate(parts) if number)
    written = (
        f"{number} {unit}" for number, unit in parts[first : first + 2] if number
    )
    return " ".join(written)

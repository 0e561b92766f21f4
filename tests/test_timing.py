"""Durations as people write and read them, and the clock behind every deadline."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_monitor.timing import (
    LONGEST,
    format_duration,
    now,
    parse_duration,
    timestamp,
)

NO_DURATIONS = ["", " ", "5x", "s", "-1", "+1", "nan", "inf", "1e3", "1e309", "5 s"]
NO_DURATIONS += ["1.", "1h30m", "٣", "1_000", "0x10", "5S", "1,5", "5\n6", "5\x00"]
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        (" 30s ", 30),
        ("1.5s", 1.5),
        (".5", 0.5),
        ("250ms", 0.25),
        ("1ms", 0.001),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("365d", LONGEST),
        ("007", 7),
    ],
)
def test_reads_what_operators_write(text: str, seconds: float) -> None:
    """A unit file with 5m would wait 5 seconds, or not start at all."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_refuses_what_is_no_duration(text: str) -> None:
    """A typing error would become a lease that never ends, or one that never lives."""
    with pytest.raises(ValueError, match=r"^is not a duration: write 30, 30s, 250ms, "):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0.0ms", "0.5ms", "366d", "9" * 500])
def test_refuses_what_no_clock_can_keep(text: str) -> None:
    """A timeout of nothing would spin, and an endless one would overflow a wait."""
    with pytest.raises(ValueError, match=r"^is out of range: 1ms to 365d$"):
        parse_duration(text)


@given(st.integers(1, 10**7), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_reads_every_number_in_every_unit(number: int, unit: str) -> None:
    """Some durations would be refused, or be of another length, for no reason."""
    seconds = number * SECONDS[unit]
    if seconds > LONGEST:
        with pytest.raises(ValueError, match="out of range"):
            parse_duration(f"{number}{unit}")
    else:
        assert parse_duration(f"{number}{unit}") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (0.001, "0.001 s"),
        (0.0166, "0.017 s"),
        (0.1234, "0.12 s"),
        (0.25, "0.25 s"),
        (2.3456, "2.35 s"),
        (9.994, "9.99 s"),
        (9.995, "10 s"),
        (10.4, "10 s"),
        (12, "12 s"),
        (59.7, "1 min"),
        (245, "4 min 5 s"),
        (3599.6, "1 h"),
        (7380, "2 h 3 min"),
        (7205, "2 h"),
        (90000, "1 d 1 h"),
    ],
)
def test_writes_what_people_read(seconds: float, text: str) -> None:
    """Operators would have to work out what 7380.0 is at three in the morning."""
    assert format_duration(seconds) == text


@given(st.floats(0, 10 * LONGEST))
def test_never_writes_a_wrong_length(seconds: float) -> None:
    """A log line would tell of another wait than there was."""
    words = format_duration(seconds).split()
    pairs = zip(words[::2], words[1::2], strict=True)
    told = sum(float(number) * SECONDS[unit] for number, unit in pairs)
    assert told == pytest.approx(seconds, rel=0.06, abs=0.0006)


@pytest.mark.promise(7)
def test_the_clock_is_no_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction of the wall clock would end a lease early or never."""
    before = now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= now() - before < 60
    assert now() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=60)


def test_timestamps_are_rfc_3339() -> None:
    """Other tools could not read `since`."""
    text = timestamp()
    assert text.endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(text)
    assert abs(age) < timedelta(minutes=1)

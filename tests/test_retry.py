"""Looking again where a record changes between a look and a write."""

from __future__ import annotations

import pytest

from service_monitor.errors import Conflict, RecordGone, StoreUnavailable
from service_monitor.recipes.retry import TRIES, Changed, look_again
from service_monitor.records import Record

RECORD = Record("k", "v", 1, 1)


def test_it_looks_again_until_nothing_changed() -> None:
    """A keepalive at the wrong moment would fail a command."""
    outcomes = [Conflict(RECORD), RecordGone("k"), Changed()]

    def attempt() -> bool:
        if outcomes:
            raise outcomes.pop()
        return False  # as good an answer as any

    assert look_again(attempt, "k") is False
    assert outcomes == []


def test_a_record_that_never_rests_is_trouble_not_a_loop() -> None:
    """A fight over a key would spin at full speed without a word."""
    looks: list[int] = []

    def attempt() -> None:
        looks.append(1)
        raise Conflict(RECORD)

    with pytest.raises(StoreUnavailable, match="k changes between any two looks"):
        look_again(attempt, "k")
    assert len(looks) == TRIES


def test_what_else_goes_wrong_is_raised_at_once() -> None:
    """An outage would be asked for four times, each time for a whole timeout."""
    looks: list[int] = []

    def attempt() -> None:
        looks.append(1)
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        look_again(attempt, "k")
    assert len(looks) == 1

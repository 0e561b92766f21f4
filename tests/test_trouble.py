"""Failures that are waited out: what is logged of them, and when it is tried again."""

from __future__ import annotations

import logging

import pytest

from service_monitor.errors import LocalLack, StoreRefused, StoreUnavailable
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import Failure, Trouble

AWAY, REFUSED = StoreUnavailable("away"), StoreRefused("no right")
LACK = LocalLack("this machine lacks threads")


def test_each_kind_in_a_row_is_logged_once_and_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage would fill the log, or a refusal in the midst of it be missed."""
    trouble = Trouble("still probing", TIMINGS)
    with caplog.at_level(logging.INFO):
        for failure in AWAY, AWAY, REFUSED, REFUSED, LACK, AWAY:
            trouble.met(failure)
        assert trouble.failure is AWAY
        trouble.over()
        trouble.over()
        trouble.met(LACK)
        trouble.over()
    assert [record.levelname for record in caplog.records] == [
        *("WARNING", "ERROR", "WARNING", "WARNING", "INFO", "WARNING", "INFO")
    ]
    assert caplog.messages[4:] == [
        "the store is back",
        "no outage of the store, still probing: this machine lacks threads",
        "this machine has again what it lacked",
    ]
    assert trouble.failure is None


def test_a_refusal_ends_the_wait_only_before_the_store_served() -> None:
    """A typing error would be waited out for minutes; a lapse of rights would not."""
    trouble = Trouble("trying again", TIMINGS, refusal_ends=True)
    trouble.met(AWAY)
    with pytest.raises(StoreRefused):
        trouble.met(REFUSED)
    trouble.served()
    trouble.met(REFUSED)
    assert trouble.failure is REFUSED


def test_a_waiter_asks_less_and_less_often() -> None:
    """A store that comes back would be met by all waiters at once."""
    trouble = Trouble("trying again", Timings(first_retry=1, longest_retry=6))
    most: list[float] = []
    for failure in [AWAY] * 12:
        trouble.met(failure)
        pauses = [trouble.growing_pause() for _ in range(200)]
        most.append(max(pauses))
        assert min(pauses) >= max(pauses) / 2.01
    assert most[0] == pytest.approx(2, rel=0.1)
    assert most[1] == pytest.approx(4, rel=0.1)
    assert max(most) <= 6
    trouble.over()
    trouble.met(AWAY)
    assert trouble.growing_pause() <= 2


@pytest.mark.parametrize("failure", [AWAY, REFUSED, LACK])
def test_all_others_ask_again_in_even_steps(failure: Failure) -> None:
    """A `watch` would see a short outage end too late, and its record lapse."""
    trouble = Trouble("still probing", Timings(store_retry=0.5))
    for _ in range(5):
        trouble.met(failure)
        assert trouble.pause() == 0.5

"""Rise and fall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_monitor.recipes.health import Health

RESULTS = st.lists(st.booleans(), max_size=40)
COUNT = st.integers(1, 5)


def run_length(results: list[bool]) -> int:
    """Return how many results at the end are the same."""
    same = 0
    while same < len(results) and results[-1 - same] is results[-1]:
        same += 1
    return same


@given(RESULTS, COUNT, COUNT)
def test_follows_the_last_row_of_equal_results(
    results: list[bool], rise: int, fall: int
) -> None:
    """A service would be called up or down too early or too late."""
    health, up = Health(rise, fall), False
    for index, ok in enumerate(results):
        enough = run_length(results[: index + 1]) >= (rise if ok else fall)
        changed = health.observe(ok, f"result {index}")
        assert changed is (enough and up is not ok)
        up = ok if enough else up
        assert health.up is up


@given(RESULTS, COUNT, COUNT)
def test_the_reason_belongs_to_the_state(
    results: list[bool], rise: int, fall: int
) -> None:
    """`status` would show a service as up because of "connection refused"."""
    health = Health(rise, fall)
    expected = {True: "", False: health.reason}
    for index, ok in enumerate(results):
        health.observe(ok, f"result {index}")
        expected[ok] = f"result {index}"
        assert health.reason == expected[health.up]


def test_starts_as_down() -> None:
    """Others would join a node that nobody has looked at yet."""
    assert not Health().up
    assert Health().reason == "not up yet"


def test_by_default_one_success_is_up_and_two_failures_are_down() -> None:
    """--rise and --fall would not be what the help says."""
    health = Health()
    assert health.observe(True, "") is True
    assert health.observe(False, "") is False
    assert health.observe(False, "") is True
    assert not Health(up=True).observe(False, "")


@pytest.mark.parametrize("ok", [True, False])
def test_a_state_that_stays_is_not_announced_again(ok: bool) -> None:
    """The log would have a line for each probe."""
    health = Health(rise=1, fall=1, up=ok)
    assert [health.observe(ok, "") for _ in range(3)] == [False] * 3


def test_a_doubted_up_ends_with_the_latest_failure() -> None:
    """A service that was started anew would be listed until --fall failures."""
    health = Health(rise=1, fall=3)
    health.observe(True, "200 OK")
    health.doubt()
    assert (health.up, health.reason) == (True, "200 OK")
    health.observe(False, "connection refused")
    assert (health.up, health.reason) == (True, "200 OK")
    health.doubt()
    assert (health.up, health.reason) == (False, "connection refused")


def test_a_down_that_is_doubted_stays() -> None:
    """`status` would lose the reason."""
    health = Health(rise=2)
    health.observe(False, "connection refused")
    health.observe(True, "200 OK")
    health.doubt()
    assert (health.up, health.reason) == (False, "connection refused")

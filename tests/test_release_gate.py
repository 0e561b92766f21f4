"""When the turn may pass on."""

from __future__ import annotations

import pytest

from service_monitor.recipes import release_gate
from service_monitor.recipes.release_gate import ReleaseGate
from service_monitor.records import Record, Ticket


def ticket(nonce: str, version: int, state: str = "held", created: int = 1) -> Record:
    value = Ticket("a", "h", state, nonce, 240.0)  # type: ignore[arg-type]
    return Record("es/lease/a", value.to_json(), created, version)


def seen(rise: int = 1) -> ReleaseGate:
    turn = ReleaseGate(rise)
    assert turn.look(ticket("n", 2))
    return turn


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "record", [None, ticket("n", 1, "waiting")], ids=["none", "waiting"]
)
def test_what_is_no_lease_is_never_earned(record: Record | None) -> None:
    """A waiter's ticket would be deleted as if it were the lease."""
    turn = seen()
    turn.observe(True)
    assert turn.is_open
    assert not turn.look(record)
    turn.observe(True)
    assert not turn.is_open
    assert turn.acquisition is None


@pytest.mark.promise(5)
@pytest.mark.parametrize("rise", [1, 3])
def test_as_many_successes_in_a_row_as_rise_earn_it(rise: int) -> None:
    """The next node would start while this one still comes and goes."""
    turn = seen(rise)
    for ok in [True] * (rise - 1) + [False] + [True] * (rise - 1):
        turn.observe(ok)
        assert not turn.is_open
    turn.observe(True)
    assert turn.is_open
    turn.observe(False)
    assert not turn.is_open


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "newer", [ticket("m", 3), ticket("n", 3, created=3)], ids=["nonce", "created"]
)
def test_a_new_acquisition_begins_anew(
    newer: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe of the old process would free the lease of the new one."""
    turn = seen()
    turn.observe(True)
    turn.release_sent = True
    monkeypatch.setattr(release_gate, "now", lambda: 77.0)
    assert turn.look(newer)
    assert not turn.is_open
    assert (turn.acquisition, turn.seen_at, turn.release_sent) == (newer, 77.0, False)


@pytest.mark.promise(5)
def test_a_renewal_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On etcd v2 a lease that `run` renews would never be released."""
    turn, since = seen(2), 5.0
    turn.seen_at, turn.release_sent = since, True
    turn.observe(True)
    renewed = ticket("n", 9)
    monkeypatch.setattr(release_gate, "now", lambda: 77.0)
    assert not turn.look(renewed)
    assert (turn.acquisition, turn.seen_at, turn.release_sent) == (renewed, since, True)
    turn.observe(True)
    assert turn.is_open


def test_nothing_is_seen_at_first() -> None:
    """A `watch` could free a lease that it has never looked at."""
    turn = ReleaseGate(1)
    turn.observe(True)
    assert not turn.is_open
    assert (turn.seen_at, turn.release_sent) == (0.0, False)

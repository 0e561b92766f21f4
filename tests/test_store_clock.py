"""What a store's time is known to be, from dates in whole seconds."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from integration.support.fakes import Clock
from service_monitor.stores.dynamodb.clock import DRIFT, SERVERS, StoreClock

EPOCH = 1_800_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(
    known: StoreClock, clock: Clock, store: float, there: float, back: float
) -> None:
    """Let an answer be dated `there` seconds after the request; `store` is its lead."""
    sent = clock.time
    clock.advance(there)
    date = formatdate(int(clock.time + store), usegmt=True)
    clock.advance(back)
    known.learn(date, sent, clock.time)


def test_before_any_answer_nothing_is_known(clock: Clock) -> None:
    """A deadline would be written that means nothing."""
    known = StoreClock(clock)
    assert not known.known
    with pytest.raises(ValueError, match="no answer"):
        known.latest()
    with pytest.raises(ValueError, match=r"."):
        known.learn("yesterday", 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_bounds_hold_and_close_in(clock: Clock, seed: int) -> None:
    """A live record would be taken for dead, or a dead one block for a second more."""
    chance = random.Random(seed)
    store = EPOCH + chance.random()
    known = StoreClock(clock)
    for _ in range(40):
        ask(known, clock, store, chance.uniform(0, 0.05), chance.uniform(0, 0.05))
        assert known.earliest() <= clock.time + store <= known.latest()
        clock.advance(chance.uniform(0, 0.4))
    assert known.latest() - known.earliest() < 2 * SERVERS + 0.35


def test_servers_that_differ_a_little_do_no_harm(clock: Clock) -> None:
    """Whose request went to the slower server would take the others' records away."""
    chance = random.Random(4)
    known = StoreClock(clock)
    for _ in range(400):
        ask(known, clock, EPOCH + chance.choice((0, SERVERS)), 0.001, 0.001)
        assert known.earliest() <= clock.time + EPOCH
        assert clock.time + EPOCH + SERVERS <= known.latest()
        clock.advance(chance.uniform(0, 0.4))


def test_what_is_long_ago_is_less_sure(clock: Clock) -> None:
    """A machine whose clock is being slewed would be an hour's drift off."""
    known = StoreClock(clock)
    ask(known, clock, EPOCH, 0, 0)
    width = known.latest() - known.earliest()
    clock.advance(3600)
    grown = known.latest() - known.earliest() - width
    assert grown == pytest.approx(2 * 3600 * DRIFT)


@pytest.mark.parametrize("jump", [-30.0, 30.0])
def test_a_clock_that_jumped_is_found_out(clock: Clock, jump: float) -> None:
    """A virtual machine that stood still would judge by the old time for ever."""
    known = StoreClock(clock)
    ask(known, clock, EPOCH, 0, 0)
    ask(known, clock, EPOCH + jump, 0, 0)  # now either may be right: both are possible
    assert known.earliest() <= clock.time + EPOCH + min(0, jump)
    assert known.latest() >= clock.time + EPOCH + max(0, jump)
    ask(known, clock, EPOCH + jump, 0, 0)
    assert known.latest() - known.earliest() < 2
    assert known.earliest() <= clock.time + EPOCH + jump <= known.latest()

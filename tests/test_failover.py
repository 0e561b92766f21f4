"""One deadline for all addresses of an etcd, and each has its share."""

from __future__ import annotations

import pytest

from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.stores.etcd import endpoints
from service_monitor.stores.etcd.endpoints import Endpoint, Failover

ONE, TWO, THREE = (Endpoint("http", f"h{n}", 2379) for n in (1, 2, 3))
Clock = list[float]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the test say what time it is."""
    time = [1000.0]
    monkeypatch.setattr(endpoints, "now", lambda: time[0])
    return time


def test_a_black_hole_leaves_time_for_the_others(clock: Clock) -> None:
    """One dead member would make the whole cluster useless."""
    shares: list[tuple[Endpoint, float]] = []

    def ask(endpoint: Endpoint, share: float) -> str:
        shares.append((endpoint, share))
        if endpoint is THREE:
            return "answer"
        clock[0] += share
        raise StoreUnavailable("no answer in time")

    failover = Failover([ONE, TWO, THREE])
    assert failover.call(ask, 6.0) == "answer"
    assert shares == [(ONE, 2.0), (TWO, 2.0), (THREE, 2.0)]
    assert failover.current is THREE


def test_who_fails_fast_leaves_its_share(clock: Clock) -> None:
    """A slow member would be cut off although there is time."""
    shares = []

    def ask(endpoint: Endpoint, share: float) -> str:
        shares.append(share)
        if endpoint is ONE:
            raise StoreUnavailable("connection refused")
        return "answer"

    Failover([ONE, TWO]).call(ask, 6.0)
    assert shares == [3.0, 6.0]


def test_the_last_good_endpoint_comes_first(clock: Clock) -> None:
    """Every call would first try the dead member."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        if endpoint is ONE:
            raise StoreUnavailable("connection refused")
        return "answer"

    failover = Failover([ONE, TWO])
    failover.call(ask, 6.0)
    failover.call(ask, 6.0)
    assert asked == [ONE, TWO, TWO]


def test_who_used_up_its_time_is_not_asked_first_again(clock: Clock) -> None:
    """A black hole would cost each call its share."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        clock[0] += 10.0
        raise StoreUnavailable("no answer in time")

    failover = Failover([ONE, TWO, THREE])
    assert failover.current is ONE
    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            failover.call(ask, 6.0)
    assert asked == [ONE, TWO, THREE, ONE]


def test_an_answer_is_not_asked_for_again(clock: Clock) -> None:
    """A refusal would be sent to each member in turn, and counted as an outage."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        raise StoreRefused("permission denied")

    with pytest.raises(StoreRefused):
        Failover([ONE, TWO]).call(ask, 6.0)
    assert asked == [ONE]


def test_tells_what_each_one_said(clock: Clock) -> None:
    """Nobody would know which member is at fault."""

    def ask(endpoint: Endpoint, share: float) -> str:
        raise StoreUnavailable("refused" if endpoint is ONE else "not found")

    with pytest.raises(StoreUnavailable) as failed:
        Failover([ONE, TWO]).call(ask, 6.0)
    assert str(failed.value) == "http://h1:2379: refused; http://h2:2379: not found"


def test_an_overrun_costs_the_others_not_the_caller(clock: Clock) -> None:
    """A call would last longer than its deadline."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        clock[0] += 10.0
        raise StoreUnavailable("no answer in time")

    with pytest.raises(StoreUnavailable, match="no answer in time"):
        Failover([ONE, TWO]).call(ask, 6.0)
    assert asked == [ONE]
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        Failover([ONE]).call(ask, 0.0)
    assert asked == [ONE]

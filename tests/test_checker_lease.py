"""The history checker sees each broken promise of the lease."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.history.relations import Rules
from integration.support.stories import LAG, LEASE, TTL, Story


def test_two_holders() -> None:
    """Else two nodes could start at once unnoticed; with two slots they may."""
    story = Story()
    story.grant("a")
    story.put("b", "waiting")
    story.put("b", "held")
    assert {"exclusion", "order"} <= story.broken()
    assert not story.broken(Rules(slots=2)) & {"exclusion", "order"}


def test_out_of_turn() -> None:
    """Else a node could overtake others; one whose ticket is gone is no other."""
    story = Story()
    story.put("a", "waiting")
    story.put("b", "waiting")
    story.put("b", "held")
    assert "order" in story.broken()

    story = Story()
    story.put("a", "waiting")
    story.put("b", "waiting")
    story.gone("a")
    story.put("b", "held")
    assert "order" not in story.broken()


@pytest.mark.parametrize("extra", [-0.01, 0.5])
def test_a_holder_that_counts_too_long(extra: float) -> None:
    """Else a node could go on in the belief that it holds what another one got."""
    story = Story()
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    story.put("a", "waiting")
    token = story.put("a", "held")
    believed: dict[str, Any] = {
        "decided": story.at,
        "deadline": story.at + LEASE + extra,
    }
    story.end(run, token=token, nonces=["a"], **believed)
    story.later(LEASE).gone("a")
    assert story.broken() == ({"belief"} if extra > 0 else set())


@pytest.mark.parametrize("extra", [-0.01, 0.01])
def test_a_deadline_the_store_shows(extra: float) -> None:
    """Else a mistake of milliseconds would wait for a pause to show."""
    story = Story()
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    token = story.put("a", "held", deadline=story.at + LEASE)
    believed: dict[str, Any] = {
        "decided": story.at,
        "deadline": story.at + LEASE + extra,
    }
    story.end(run, token=token, nonces=["a"], **believed)
    assert story.broken() == ({"belief"} if extra > 0 else set())


def test_a_lease_taken_when_it_was_over() -> None:
    """Else a node paused in its grant would start beside its successor."""
    story = Story()
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    token = story.put("a", "held")
    deadline = story.at + LEASE
    story.later(LEASE).gone("a", expired=True)
    told: dict[str, Any] = {
        "decided": story.later(1).at,
        "deadline": deadline,
        "nonces": ["a"],
    }
    story.end(run, token=token, **told)
    assert story.broken() == {"belief"}


@pytest.mark.parametrize(
    ("what", "target", "excused"),
    [("", "", False), ("pause", "process", True), ("partition", "store", True)],
)
def test_a_lost_wakeup(what: str, target: str, excused: bool) -> None:
    """Else the queue could stand still at a free slot; a fault is an excuse."""
    story = Story()
    story.grant("a")
    run = story.begin("enqueue", "b", lease_timeout=LEASE)
    story.later(0.1).put("b", "waiting")
    story.come_up("a")
    if what:
        story.fault(what, 2.0, run, target)
    token = story.later(1.5).put("b", "held")
    story.end(run, token=token, nonces=["b"])
    assert story.broken() == (set() if excused else {"wakeup"})


def test_a_waiter_may_take_its_time_while_another_holds() -> None:
    """Else waiting itself would be called a lost wake-up."""
    story = Story()
    story.grant("a")
    run = story.begin("enqueue", "b", lease_timeout=LEASE)
    story.later(0.1).put("b", "waiting")
    story.later(4)
    story.come_up("a")
    token = story.later(0.5).put("b", "held")
    story.end(run, token=token, nonces=["b"])
    assert story.broken() == set()


@pytest.mark.parametrize("paused", [True, False])
def test_a_paused_waiter_ahead_is_an_excuse(paused: bool) -> None:
    """Else the second of two slots would be called free while its turn is not come."""
    story = Story()
    runs = {}
    for node in ("a", "b"):
        runs[node] = story.begin("enqueue", node, lease_timeout=LEASE)
        story.put(node, "waiting")
    if paused:
        story.fault("pause", 2.5, runs["a"])
    story.later(2.6)
    for node in ("a", "b"):
        token = story.put(node, "held")
        story.end(runs[node], token=token, nonces=[node])
    rules = Rules(slots=2, waiter_ttl=TTL)
    assert story.broken(rules) == (set() if paused else {"wakeup"})


@pytest.mark.parametrize("late", [-0.2, 0.2])
def test_a_dead_waiter_blocks_too_long(late: float) -> None:
    """Else a crashed node could hold up all others for longer than was said."""
    story = Story()
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    story.put("a", "waiting")
    story.fault("kill", run=run)
    story.end(run, -9, nonces=["a"])
    story.later(TTL + 1.5 + LAG + late).gone("a")
    assert story.broken() == ({"takeover"} if late > 0 else set())


@pytest.mark.parametrize("late", [-0.2, 0.2])
def test_a_lease_that_does_not_end(late: float) -> None:
    """Else a node that dies while it boots could block all others."""
    story = Story()
    story.grant("a")
    story.later(LEASE + 1.5 + LAG + late).gone("a")
    assert story.broken() == ({"takeover"} if late > 0 else set())


def test_a_store_fault_gives_the_time_anew() -> None:
    """Else a new leader, which re-arms every TTL, would count as a broken promise."""
    story = Story()
    story.grant("a")
    story.later(5).fault("leader", 2.0, target="store")
    story.later(LEASE + 3).gone("a")
    assert story.broken() == set()


def again(waiter: bool) -> Story:
    """Tell of a node that asks again and again, while somebody waits or not."""
    story = Story()
    story.grant("a")
    if waiter:
        story.begin("enqueue", "b", lease_timeout=LEASE)
        story.put("b", "waiting")
    story.later(6)
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    token = story.later(0.1).put("a", "held", "a2")
    story.end(run, token=token, nonces=["a2"])
    story.later(8).gone("a", expired=True)
    return story


def test_a_crash_loop_starves_nobody() -> None:
    """Else a node that restarts again and again would keep its lease for ever."""
    assert again(waiter=True).broken() == {"takeover"}
    assert again(waiter=False).broken() == set()


@pytest.mark.parametrize("pause", [0.0, 3.5])
def test_a_live_waiter_loses_its_place(pause: float) -> None:
    """Else a keepalive that does not work would pass; a pause is an excuse."""
    story = Story()
    story.grant("a")
    run = story.begin("enqueue", "b", lease_timeout=LEASE)
    story.put("b", "waiting")
    if pause:
        story.fault("pause", pause, run)
    story.later(4).gone("b")
    story.later(3).fault("term", run=run)
    story.later(0.1).end(run, 143, nonces=["b"])
    assert story.broken() == (set() if pause else {"place"})


def test_success_that_the_store_does_not_know() -> None:
    """Else a node could start with a lease that was never given."""
    story = Story()
    run, token = story.grant("a")
    story.events = [
        replace(event, data={**event.data, "token": token + 5})
        if event.run == run and event.kind == "acquire"
        else event
        for event in story.events
    ]
    assert story.broken() == {"exit_code"}


def test_a_release_that_did_not_happen() -> None:
    """Else `release-lease` could say it is done while the others still wait."""
    for done in (True, False):
        story = Story()
        _, token = story.grant("a")
        run = story.begin("release-begin", "a", token=token)
        if done:
            story.later(0.1).gone("a")
        story.later(0.1).end(run, token=token)
        if not done:
            story.later(0.1).gone("a")
        assert story.broken() == (set() if done else {"exit_code"})


@pytest.mark.parametrize(("second", "broken"), [(9, False), (7, True), (5, True)])
def test_tokens_grow(second: int, broken: bool) -> None:
    """Else a service that checks tokens could let an old holder in."""
    story = Story()
    for token, node in ((7, "a"), (second, "b")):
        run = story.begin("enqueue", node)
        story.later(1).end(run, token=token)
        story.later(1)
    assert ("tokens" in story.broken()) == broken

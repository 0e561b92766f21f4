"""The history checker sees what a node does wrong: signals, `watch`, hosts."""

from __future__ import annotations

from typing import Any

import pytest

from integration.support.stories import LEASE, TTL, Story, two_nodes


@pytest.mark.parametrize("left", [True, False])
def test_a_signal_leaves_no_ticket(left: bool) -> None:
    """Else stopping a unit that waits would leave a gap in the queue."""
    story = Story()
    story.grant("a")
    run = story.begin("enqueue", "b", lease_timeout=LEASE)
    story.later(0.5).put("b", "waiting")
    story.fault("term", run=run)
    if not left:
        story.later(0.1).gone("b")
    story.later(0.1).end(run, 143, nonces=["b"])
    if left:
        story.later(2).gone("b")
    assert story.broken() == ({"clean_exit"} if left else set())


def test_a_process_that_ignores_its_signal() -> None:
    """Else stopping a unit could hang until it is killed."""
    story = Story()
    run = story.begin("watch-begin", "a")
    story.fault("term", run=run)
    story.later(4).end(run, 0, nonces=[])
    assert story.broken() == {"clean_exit"}


def test_a_stopped_watch_deregisters() -> None:
    """Else others would be told to join a node that was shut down in order."""
    story = two_nodes()
    run = next(r for r, begun in story.begun.items() if begun == ("watch-begin", "b"))
    story.fault("term", run=run)
    story.later(0.1).end(run, 0, nonces=["wb"])
    story.later(1).gone("b", "hosts")
    assert story.broken() == {"clean_exit"}


def test_released_before_it_is_up() -> None:
    """Else the next node would start without seeing this one."""
    story = Story()
    story.grant("a")
    story.begin("watch-begin", "a")
    story.later(0.1).event("probe", "a", began=story.at - 0.01)
    story.later(0.1).gone("a")
    story.later(0.1).put("a", "up", "wa", "hosts")
    assert story.broken() == {"released"}


@pytest.mark.parametrize("began", [-2.0, 0.05])
def test_released_by_an_old_probe(began: float) -> None:
    """Else a probe of the process before could free the lease of the new one."""
    story = Story()
    story.put("a", "up", "wa", "hosts")
    story.begin("watch-begin", "a")
    story.later(3)
    story.grant("a")
    granted = story.at
    story.later(0.2).event("probe", "a", began=granted + began)
    story.later(0.1).gone("a")
    assert story.broken() == ({"released", "belief"} if began < 0 else set())


def test_a_lease_that_just_ended_was_released_by_nobody() -> None:
    """Else every expiry would be called a release without right."""
    story = Story()
    story.grant("a")
    story.later(LEASE + 0.1).gone("a")
    assert story.broken() == set()


@pytest.mark.parametrize(("ends", "broken"), [(0.4, False), (1.0, True)])
def test_a_lease_whose_time_began_before_its_grant(ends: float, broken: bool) -> None:
    """Else an expiry on a slow etcd would be called a release without right."""
    story = Story()
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    story.put("a", "waiting")
    token = story.later(5).put("a", "held")
    told: dict[str, Any] = {"decided": story.at, "deadline": story.at + ends}
    story.end(run, token=token, nonces=["a"], **told)
    story.later(0.5).gone("a")
    assert ("released" in story.broken()) == broken


@pytest.mark.parametrize(
    ("listed", "broken"),
    [(["a"], False), ([], True), (["a", "c"], True), (["a", "ghost"], True)],
)
def test_the_hosts_after_a_grant(listed: list[str], broken: bool) -> None:
    """Else a node could start without those that were up, or join what is not."""
    story = Story()
    story.grant("a")
    story.come_up("a")
    story.later(0.1).put("c", "down", "wc", "hosts")
    _, token = story.grant("b")
    run = story.begin("hosts-begin", "b", grant=token)
    story.later(0.1).end(run, hosts=listed, grant=token)
    assert story.broken() == ({"hosts"} if broken else set())


@pytest.mark.parametrize("why", ["term", "kill", "pause", "outage", ""])
@pytest.mark.parametrize(
    ("begun", "code"), [("hosts-begin", 69), ("enqueue", 1), ("watch-begin", 0)]
)
def test_a_command_that_ends_for_no_reason(begun: str, code: int, why: str) -> None:
    """Else a `watch` that gives up by itself would just be started again."""
    story = Story()
    run = story.begin(begun, "a")
    if why:
        story.fault(why, 0.1, run, "store" if why == "outage" else "process")
    story.later(0.2).end(run, code, grant=0, hosts=[])
    assert story.broken() == (set() if why else {"ending"})


@pytest.mark.parametrize(
    ("recovery", "broken"), [(None, True), (0.5, True), (5.0, False)]
)
def test_a_fault_excuses_as_long_as_it_says(
    recovery: float | None, broken: bool
) -> None:
    """Else a lost wake-up would hide behind a fault that cannot have caused it."""
    story = Story()
    story.event("fault", what="x", target="store", id=1, recovery=recovery)
    story.later(1).event("mended", id=1)
    run = story.begin("enqueue", "a", lease_timeout=LEASE)
    story.put("a", "waiting")
    story.later(2.5).put("a", "held")
    story.end(run, 0, nonces=["a"])
    assert ("wakeup" in story.broken()) == broken


def test_a_watch_that_never_published() -> None:
    """Else a `watch` stopped at its start would end the judging."""
    story = Story()
    run = story.begin("watch-begin", "a")
    story.later(0.1).fault("term", run=run)
    story.later(0.1).end(run, 0, nonces=[])
    run = story.begin("hosts-begin", "b", grant=0)
    story.later(0.1).end(run, hosts=[], grant=0)
    assert story.broken() == set()


def test_a_host_that_goes_while_it_is_read() -> None:
    """Else a service that goes down at that moment would count as forgotten."""
    story = Story()
    story.grant("a")
    story.come_up("a")
    _, token = story.grant("b")
    run = story.begin("hosts-begin", "b", grant=token)
    story.later(0.1).put("a", "down", "wa", "hosts")
    story.later(0.1).end(run, hosts=[], grant=token)
    assert story.broken() == set()


@pytest.mark.parametrize("seconds", [5.0, 7.0])
def test_what_stays_behind(seconds: float) -> None:
    """Else records of unknown origin could block the queue for ever."""
    story = Story()
    story.put("a", "waiting", "nobody")
    story.later(seconds).event("end")
    assert story.broken() == ({"orphans"} if seconds > 2 * TTL else set())

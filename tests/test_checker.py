"""The judge of histories, on made-up ones: a rule fires when it should, only then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from integration.history.checker import RULES, Rules, check, verdict
from integration.history.recorder import (
    Change,
    Event,
    Recorder,
    read_changes,
    read_events,
    write_lines,
)

LEASE = 10.0
TTL = 3.0
LAG = 0.05  # seconds by which the observer may be behind


@dataclass
class Story:
    """A history in the making; `at` is the present."""

    at: float = 100.0
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    runs: int = 0
    version: int = 0
    created: dict[tuple[str, str], int] = field(default_factory=dict)
    begun: dict[int, tuple[str, str]] = field(default_factory=dict)

    def later(self, seconds: float) -> Story:
        self.at += seconds
        return self

    def event(self, kind: str, node: str = "", run: int = 0, **data: Any) -> None:
        self.events.append(Event(self.at, kind, "es", node, run, data))

    def begin(self, kind: str, node: str, **data: Any) -> int:
        self.runs += 1
        self.event(kind, node, self.runs, **data)
        self.begun[self.runs] = kind, node
        return self.runs

    def end(self, run: int, code: int = 0, **data: Any) -> None:
        begun, node = self.begun[run]
        kinds = {
            "enqueue": "acquire",
            "hosts-begin": "hosts",
            "watch-begin": "watch-end",
            "release-begin": "release",
        }
        self.event(kinds[begun], node, run, code=code, **data)

    def fault(
        self, what: str, seconds: float = 0.0, run: int = 0, target: str = "process"
    ) -> None:
        number = 1000 + len(self.events)
        self.event("fault", "", run, what=what, target=target, id=number)
        mended = Event(self.at + seconds, "mended", data={"id": number})
        self.events.append(mended)

    def put(
        self, node: str, state: str, nonce: str = "", kind: str = "lease", **more: Any
    ) -> int:
        """Let the store take a record in; give its version."""
        self.version += 1
        created = self.created.setdefault((kind, node), self.version)
        value: dict[str, Any] = {"state": state, "nonce": nonce or node, "host": node}
        if kind == "lease":
            value |= {"lease_timeout": LEASE}
        span = self.at - LAG, self.at
        change = Change(*span, "es", kind, node, created, self.version, value)
        self.changes.append(replace(change, **more))
        return self.version

    def gone(self, node: str, kind: str = "lease", expired: bool | None = None) -> None:
        self.version += 1
        created = self.created.pop((kind, node))
        span = self.at - LAG, self.at
        self.changes.append(
            Change(*span, "es", kind, node, created, self.version, None, expired)
        )

    def grant(self, node: str) -> tuple[int, int]:
        """Let a node get the lease at once; give its run and its token."""
        run = self.begin("enqueue", node, lease_timeout=LEASE)
        self.later(0.1).put(node, "waiting")
        token = self.later(0.1).put(node, "held")
        deadline = self.at - 0.1 + LEASE
        told: dict[str, Any] = {
            "decided": self.at,
            "deadline": deadline,
            "nonces": [node],
        }
        self.end(run, token=token, **told)
        return run, token

    def come_up(self, node: str) -> int:
        """Let a node's service come up and its lease be released; give watch's run."""
        run = self.begin("watch-begin", node)
        self.later(0.1).event("probe", node, began=self.at - 0.01)
        self.later(0.1).put(node, "up", f"w{node}", "hosts")
        self.later(0.1).gone(node)
        return run

    def broken(self, rules: Rules | None = None) -> set[str]:
        rules = rules or Rules(waiter_ttl=TTL, host_ttl=TTL)
        return {v.rule for v in check(self.events, self.changes, rules)}


def two_nodes() -> Story:
    """Tell of two nodes that start one after the other, as they should."""
    story = Story()
    story.grant("a")
    story.come_up("a")
    story.later(0.1)
    _, token = story.grant("b")
    run = story.begin("hosts-begin", "b", grant=token)
    story.later(0.1).end(run, hosts=["a"], grant=token)
    story.come_up("b")
    return story


def test_what_is_right_passes() -> None:
    """Else every run would be red, and soon nobody would look."""
    assert two_nodes().broken() == set()


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


def test_a_gap_in_the_log_proves_nothing() -> None:
    """Else a compaction that the observer missed would look like broken promises."""
    story = Story()
    story.grant("a")
    story.later(1)
    gap = Change(story.at - 1, story.at, "", "gap", "", 0, 0, None)
    story.changes.append(gap)
    story.put("c", "waiting", "nobody", seen=False)
    story.put("b", "held", "nobody", seen=False)
    assert story.broken() == set()


def test_the_verdict_shows_the_surroundings() -> None:
    """Else somebody would have to look for the first bad event by hand."""
    story = two_nodes()
    story.later(1).put("c", "waiting")
    story.later(1).put("d", "waiting")
    story.put("d", "held")
    found = check(story.events, story.changes, Rules(waiter_ttl=TTL))
    told = verdict(found, story.events, story.changes)
    assert told.startswith("order: d was granted the lease before c")
    (line,) = (line for line in told.splitlines() if line.startswith(">"))
    assert "es/d" in line
    assert "STORE lease held" in line
    assert "es/c" in told
    assert verdict([], story.events, story.changes) == "no violations"


def test_every_rule_has_a_bad_history_here() -> None:
    """Else a rule could be added that nothing shows to work."""
    text = Path(__file__).read_text()
    for rule in RULES:
        assert f'"{rule.__name__}"' in text, rule


def test_histories_are_kept_as_lines(tmp_path: Path) -> None:
    """Else a history could not be judged again, or by somebody else."""
    record = Recorder(tmp_path / "events")
    number = record.fault("kill", "process", run=3)
    record.mended(number)
    record.close()
    assert read_events(tmp_path / "events") == record.events
    changes = two_nodes().changes
    write_lines(tmp_path / "changes", changes)
    assert read_changes(tmp_path / "changes") == changes

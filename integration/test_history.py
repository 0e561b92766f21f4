"""The checker against real processes: it sees every seeded bug, and no other.

The commands are the real CLI, the store is a real etcd or a real SQLite file; waiters
have a TTL of 3 s here, so that pauses near it do not take minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from integration.faults.etcd_cluster import obstacle
from integration.history.checker import check, verdict
from integration.history.lives import Settings, lives, strikes
from integration.history.rig import Rig
from integration.history.rules import Violation
from integration.history.run import Outcome, fire, isolated, main, report, stage
from integration.history.seeded import BUGS
from integration.support.etcd import Etcd
from service_monitor.timing import now

CATCH = 300.0  # seconds in which a bug has to be caught
CLEAN = 8.0  # seconds that the product has to survive here; minutes elsewhere

pytestmark = pytest.mark.timeout(400, func_only=True)

TIMED = {"wakeup", "takeover", "place", "clean_exit"}

# What has to befall the nodes for a bug to show soon.
BEFALLS = {
    "no-keepalive": ("slow-boot",),
    "release-without-owner-check": ("stop-watch",),
    "ticket-without-ttl": ("kill-waiter",),
    "grant-without-compare": ("stop-waiter",),
    "success-without-lease": ("stop-waiter",),
    "ticket-left-behind": ("term-waiter",),
    "lost-wakeup": ("release-by-hand",),
}
# SQLite shows deadlines to the millisecond; etcd's come late, and hide small mistakes.
ON_SQLITE = {"deadline-from-reply", "release-without-owner-check", "lost-wakeup"}


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/store.db"


def caught(rig: Rig, rules: frozenset[str]) -> Callable[[], bool]:
    """Give a look at the history so far that tells whether the bug has shown."""

    def look() -> bool:
        settled = now() - 1.0  # what is younger may not be complete
        events, changes = list(rig.record.events), list(rig.observer.changes)
        found = check(events, changes, rig.settings.rules())
        return any(v.rule in rules and v.at < settled for v in found)

    return look


@pytest.mark.seeded
@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_seeded_bug_is_caught(name: str, etcd: Etcd, sqlite: str) -> None:
    """Else "no violations" would say nothing about the lease."""
    bug = BUGS[name]
    befalls = BEFALLS.get(name, ())
    settings = Settings(
        store=sqlite if name in ON_SQLITE else isolated(etcd.url),
        labels=2,
        waiter_ttl=2.0,
        nodes=3 if name != "release-without-owner-check" else 1,
        calm=0.5 if befalls else 0.9,
        fates=befalls,
        stops=("update:held",),
        lease_timeouts=(10,) if befalls == ("stop-waiter",) else (2, 3),
        bug=name,
    )
    with Rig(settings) as rig:
        rig.run(CATCH, caught(rig, bug.rules), drain=False)
    events, changes = rig.record.events, rig.observer.changes
    found = check(events, changes, settings.rules())
    told = verdict(found, events, changes)
    assert bug.rules & {violation.rule for violation in found}, told
    assert told.startswith(found[0].rule)
    assert "\n>" in told


@pytest.mark.seeded
def test_a_seeded_bug_is_caught_while_the_store_fails() -> None:
    """Else the faults of the store might excuse whatever is wrong."""
    if reason := obstacle():
        pytest.skip(reason)
    with stage("etcd") as target:
        settings = Settings(
            target.url, observed=target.observed, waiter_ttl=2.0, bug="lost-wakeup"
        )
        with Rig(settings, faults=target.faults) as rig:
            rig.run(CATCH, caught(rig, BUGS["lost-wakeup"].rules), drain=False)
            assert caught(rig, BUGS["lost-wakeup"].rules)()


def sane(outcome: Outcome) -> list[Violation]:
    """Give the violations of a run in which something happened at all.

    A machine that others load makes a few of the rules about time; more is a bug.
    """
    assert outcome.acquisitions > 3
    assert not outcome.errors
    assert outcome.faults["process"].total()
    timed = [v for v in outcome.violations if v.rule in TIMED]
    return list(outcome.violations) if timed != outcome.violations else timed[3:]


@pytest.mark.parametrize(
    ("kind", "slots"),
    [("etcd3", 1), ("etcd3", 2), ("etcd2", 1), ("sqlite", 1), ("dynamodb", 1)],
)
def test_the_product_survives_the_same(
    kind: str, slots: int, etcd: Etcd, sqlite: str, request: pytest.FixtureRequest
) -> None:
    """Else a node would start out of turn, or wait for ever, when others die."""
    url = {"etcd3": etcd.url, "etcd2": etcd.url_v2, "sqlite": sqlite}.get(kind)
    url = url or request.getfixturevalue("dynamodb").make_table()
    settings = Settings(
        isolated(url), labels=3, nodes=4, slots=slots, seed=slots, calm=0.6
    )
    outcome = fire(settings, CLEAN)
    assert not sane(outcome), report(outcome)


def test_a_minute_of_everything() -> None:
    """Else a node would start out of turn when processes and the store fail at once."""
    if reason := obstacle():
        pytest.skip(reason)
    with stage("etcd") as target:
        settings = Settings(
            target.url, observed=target.observed, labels=4, seed=1, calm=0.8
        )
        outcome = fire(settings, 60.0, faults=target.faults)
    assert not sane(outcome), report(outcome)
    assert outcome.faults["store"].total() > 2


def test_the_seed_fixes_what_happens() -> None:
    """Else a failure under a seed could never be looked at again."""
    settings = Settings("sqlite:///unused", seed=7, calm=0.2)

    def first(seed: int, node: int) -> list[object]:
        drawn = lives(replace(settings, seed=seed), 0, node)
        return list(itertools.islice(drawn, 50))

    def struck(seed: int) -> list[tuple[float, str, float]]:
        return list(itertools.islice(strikes(seed, ["a", "b", "c"]), 30))

    assert struck(7) == struck(7)
    assert struck(7) != struck(8)
    assert {kind for _, kind, _ in struck(7)[:3]} == {"a", "b", "c"}
    assert first(7, 1) == first(7, 1)
    assert first(7, 1) != first(8, 1)
    assert first(7, 1) != first(7, 2)


def test_the_command_reports_and_draws(
    sqlite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a run of an hour would end without anything to show for it."""
    page = tmp_path / "page.html"
    options = ["--minutes", "0.05", "--seed", "3", "--store", sqlite, "--nodes", "2"]
    code = main([*options, "--report", str(page), "--keep", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "violations     0" in told
    assert "<svg" in page.read_text()
    assert (tmp_path / "events.jsonl").stat().st_size
    assert (tmp_path / "changes.jsonl").stat().st_size

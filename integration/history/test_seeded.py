"""The checker against real processes: it sees every seeded bug.

The commands are the real CLI, the store is a real etcd or a real SQLite file; waiters
have a TTL of 2 s here, so that pauses near it do not take minutes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from integration.faults.etcd_cluster import obstacle
from integration.history.checker import check, verdict
from integration.history.lives import Settings
from integration.history.rig import Rig
from integration.history.run import isolated, stage
from integration.history.seeded import BUGS
from integration.support.etcd import Etcd
from service_monitor.timing import now

CATCH = 300.0  # seconds in which a bug has to be caught

pytestmark = pytest.mark.timeout(400, func_only=True)

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

"""`reset`: forget who founded a label, and its members."""

from __future__ import annotations

import pytest

from integration.support.commands import Run, acquire, keys, register
from service_monitor.recipes.founder import Founder
from service_monitor.recipes.member import Member
from service_monitor.stores.base import Store

YES = ("reset", "--label=es", "--yes")


@pytest.fixture(autouse=True)
def _remembered(store: Store) -> None:
    founder = Founder("es-1", "10.0.0.1", "claimed", since="03:14")
    store.create("es/founder", founder.to_json(), None)
    member = Member("es-1", "10.0.0.1", "down")
    store.create("es/members/es-1", member.to_json(), None)
    store.create("other/founder", founder.to_json(), None)


def test_it_forgets_the_founder_and_the_members(run: Run, store: Store) -> None:
    """A label whose founder's machine is gone for good would never have a cluster."""
    outcome = run(*YES)
    assert outcome.code == 0
    assert keys(store) == ["other/founder"]
    told = "forgot the founder es-1 (claimed since 03:14) and 1 member (es-1)"
    assert told in outcome.err
    assert "forgot nothing" in run(*YES).err


def test_without_yes_it_says_what_it_would_do(run: Run, store: Store) -> None:
    """A typing error would let a second cluster be founded."""
    outcome = run("reset", "--label=es")
    assert outcome.code == 2
    assert "would forget the founder es-1 (claimed since 03:14)" in outcome.err
    assert len(keys(store)) == 3


def test_it_is_refused_while_anybody_lives(run: Run, store: Store) -> None:
    """A node that starts meanwhile would found beside those that are up."""
    register(store, "es-2", "10.0.0.2")
    outcome = run(*YES)
    assert outcome.code == 1
    assert "es-2 is registered as up: stop all nodes" in outcome.err
    assert "es/founder" in keys(store)


def test_it_is_refused_while_anybody_starts(run: Run, store: Store) -> None:
    """A founder that boots would lose its claim."""
    assert acquire(run, "es-2").code == 0
    outcome = run(*YES)
    assert outcome.code == 1
    assert "es-2 holds the lease" in outcome.err
    assert "es/members/es-1" in keys(store)

"""`forget`: a member that will not come back is taken out of what is remembered."""

from __future__ import annotations

import pytest

from integration.support.commands import Run, acquire, error_of, keys, register
from integration.support.members import remember, remembered
from service_monitor.errors import StillLives
from service_monitor.recipes.forget import forget
from service_monitor.records import Ticket, ticket_key
from service_monitor.stores.base import Store

ARGV = ("forget", "--label=ES", "--service-id=es-1")


def test_who_is_gone_is_forgotten(run: Run, store: Store) -> None:
    """A node that was scrapped would be shown, and waited for, for ever."""
    remember(store, "es-1", "stopped")
    remember(store, "es-2")
    remember(store, "es-1", label="other")
    outcome = run(*ARGV)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.endswith("INFO label ES: forgot es-1\n")
    assert keys(store) == ["es/members/es-2", "other/members/es-1"]


def test_who_was_never_known(run: Run, store: Store) -> None:
    """A script that is run again would end with an error."""
    remember(store, "es-11")
    outcome = run(*ARGV)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.endswith("INFO label ES: does not know es-1\n")
    assert keys(store) == ["es/members/es-11"]


@pytest.mark.parametrize("state", ["up", "down"])
@pytest.mark.parametrize("known", [True, False])
def test_who_is_registered_is_not_forgotten(
    run: Run, store: Store, state: str, *, known: bool
) -> None:
    """A typing error would make a label forget a node that serves."""
    register(store, "es-1", "10.0.0.1", state)
    if known:
        remember(store, "es-1")
    before = keys(store)
    outcome = run(*ARGV)
    assert outcome.code == 1
    told = "label ES: es-1 lives on 10.0.0.1, as it is registered: stop it first"
    assert error_of(outcome) == told
    assert keys(store) == before


def test_who_holds_the_lease_is_not_forgotten(run: Run, store: Store) -> None:
    """A node that boots would be forgotten, and others not wait for its data."""
    remember(store, "es-1")
    assert acquire(run, "es-1", "--host=10.0.0.1").code == 0
    told = "lives on 10.0.0.1, as it holds the startup lease: stop it first"
    assert error_of(run(*ARGV)) == f"label ES: es-1 {told}"


def test_who_waits_for_the_lease_is_not_forgotten(run: Run, store: Store) -> None:
    """The same, of a node that is next in line."""
    remember(store, "es-1")
    ticket = Ticket("es-1", "10.0.0.1", "waiting", "n", 60).to_json()
    store.create(ticket_key("es", "es-1"), ticket, 60)
    told = "lives on 10.0.0.1, as it waits for the startup lease: stop it first"
    assert error_of(run(*ARGV)) == f"label ES: es-1 {told}"


@pytest.mark.parametrize("value", ["{}", "no JSON"])
@pytest.mark.parametrize("kind", ["hosts", "lease"])
def test_what_cannot_be_read_counts_as_life(
    run: Run, store: Store, kind: str, value: str
) -> None:
    """A node of a later release would be taken for dead."""
    remember(store, "es-1")
    store.create(f"es/{kind}/es-1", value, 60)
    assert "es-1 lives on an unknown host, as it " in error_of(run(*ARGV))
    assert "es/members/es-1" in keys(store)


def test_a_foreign_host_stays_on_its_line(run: Run, store: Store) -> None:
    """Whoever may write to the store could repaint the operator's terminal."""
    register(store, "es-1", "\x1b[2J\n" + "x" * 10_000)
    assert r"lives on \x1b[2J" in error_of(run(*ARGV))


@pytest.mark.parametrize("value", ["", "no JSON", "[]", remembered("other")])
def test_what_is_no_member_is_removed_too(run: Run, store: Store, value: str) -> None:
    """A key of another tool could be mended only with the store's own tools."""
    store.create("es/members/es-1", value, None)
    assert run(*ARGV).code == 0
    assert keys(store) == []


def test_a_write_meanwhile_is_a_sign_of_life(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that came back at that moment would be forgotten while it serves."""
    member = remember(store, "es-1", "stopped")
    real = store.list

    def list_then_write(prefix: str) -> object:
        found = real(prefix)
        store.update(member, remembered("es-1"), None)
        return found

    monkeypatch.setattr(store, "list", list_then_write)
    with pytest.raises(StillLives, match="es-1 wrote to its record meanwhile"):
        forget(store, "es", "es-1")
    assert keys(store) == ["es/members/es-1"]


def test_whom_to_forget_has_to_be_said(run: Run, store: Store) -> None:
    """The machine on which an operator happens to be would be forgotten."""
    remember(store, "es-1")
    env = {"SERVICE_MONITOR_SERVICE_ID": "es-1"}
    outcome = run("forget", "--label=es", env=env)
    assert outcome.code == 2
    assert error_of(outcome).startswith("--service-id is missing")
    env = {"SERVICE_MONITOR_FORGET_SERVICE_ID": "es-1"}
    assert run("forget", "--label=es", env=env).code == 0
    assert keys(store) == []

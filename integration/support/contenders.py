"""Contenders for a lease on a store in memory, each with its faults."""

from __future__ import annotations

from integration.support.fakes import Clock, FlakyStore, StillSession
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.records import Ticket
from service_monitor.stores.sqlite.store import SqliteStore


class Node:
    """A contender with handles on what lies inside it."""

    def __init__(
        self, store: SqliteStore, clock: Clock, name: str, **request: float
    ) -> None:
        self.sessions: list[StillSession] = []
        self.flaky = FlakyStore(store, clock)
        settings = {"lease_timeout": 60.0, "slots": 1} | request
        self.request = Request("ES", name, f"host-{name}", **settings)  # type: ignore[arg-type]
        self.contender = Contender(
            self.flaky,
            self.request,
            clock,
            self._session,  # type: ignore[arg-type]
        )

    def _session(self, *args: object) -> StillSession:
        self.sessions.append(StillSession(*args))  # type: ignore[arg-type]
        return self.sessions[-1]

    def step(self) -> Lease | Waiting:
        return self.contender.step()

    def wins(self) -> Lease:
        outcome = self.step()
        assert isinstance(outcome, Lease)
        return outcome

    def waits(self) -> Waiting:
        outcome = self.step()
        assert isinstance(outcome, Waiting)
        return outcome


def tickets(store: SqliteStore) -> list[Ticket]:
    found = [Ticket.from_json(r.value) for r in store.list("es/lease/").records]
    return [ticket for ticket in found if ticket]

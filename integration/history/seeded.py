"""Seeded bugs: each breaks one promise, and the checker has to see it.

They are planted at run time into one child of the launcher, never into the product.
One can be tried by hand as well:

    python -m integration.history.seeded no-keepalive -- acquire-lease --label=es
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from integration.history.launcher import set_waiter_ttl
from service_monitor.errors import Conflict, RecordGone
from service_monitor.net.stop import Stop
from service_monitor.node.startup_lease import StartupLease
from service_monitor.node.watcher import Watcher
from service_monitor.recipes import acquire, contender, discovery, lease, publisher
from service_monitor.recipes.queue import Queue, read_queue
from service_monitor.recipes.release_gate import ReleaseGate
from service_monitor.recipes.session import Session
from service_monitor.recipes.ticket import TicketLife
from service_monitor.recipes.timings import Timings
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import Store


@dataclass(frozen=True)
class Bug:
    """What is wrong, how to make it so, and which rules may be the first to tell."""

    what: str
    plant: Callable[[], None]
    rules: frozenset[str]


BUGS: dict[str, Bug] = {}


def _bug(*rules: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(plant: Callable[[], None]) -> Callable[[], None]:
        name = plant.__name__.replace("_", "-")
        BUGS[name] = Bug(plant.__doc__ or "", plant, frozenset(rules))
        return plant

    return keep


def _set(where: object, name: str, value: object) -> None:
    setattr(where, name, value)


@_bug("order")
def order_by_name() -> None:
    """The queue is sorted by service id, not by who came first."""

    def by_name(snapshot: Snapshot) -> Queue:
        entries = read_queue(snapshot).entries
        return Queue(tuple(sorted(entries, key=lambda e: e.record.key)))

    _set(contender, "read_queue", by_name)


@_bug("place")
def no_keepalive() -> None:
    """A waiting ticket is never renewed."""

    real = TicketLife.keep_alive

    def keep_alive(self: Any, record: Record) -> Session:
        session = real(self, record)
        _set(session, "_vouch", lambda: False)
        return session

    _set(TicketLife, "keep_alive", keep_alive)


@_bug("released")
def release_without_owner_check() -> None:
    """`watch` frees whatever lease its service id has by then."""

    def release(self: Any) -> None:
        if self._gate.is_open:
            with suppress(Conflict):
                self._store.delete(self._gate.acquisition)
            for record in self._store.list(self.key).records:
                self._store.delete(record)
            self._gate = ReleaseGate(self._health.rise)

    _set(StartupLease, "release_if_due", release)


@_bug("takeover")
def ticket_without_ttl() -> None:
    """A waiting ticket does not expire."""
    set_waiter_ttl(3600.0)


@_bug("order", "exclusion")
def grant_without_compare() -> None:
    """The lease is written although the ticket is no longer there."""
    real = Session.update

    def update(self: Any, seen: Record, value: str, ttl: float | None = None) -> Record:
        try:
            return real(self, seen, value, ttl)
        except RecordGone:
            record: Record = self._store.create(seen.key, value, ttl or 1.0)
            return record

    _set(Session, "update", update)


@_bug("released")
def release_before_up() -> None:
    """The lease is released before "up" is in the store."""
    real = Watcher.__init__

    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        publish = self._publisher.reconcile

        def late(health: Any) -> Any:
            if health.up:
                self.lease.release_if_due()
            return publish(health)

        self._publisher.reconcile = late

    _set(Watcher, "__init__", init)


@_bug("clean_exit")
def ticket_left_behind() -> None:
    """SIGTERM ends a waiter without taking its ticket back."""
    _set(TicketLife, "take_back", TicketLife.stop_renewing)


@_bug("clean_exit")
def registration_left_behind() -> None:
    """SIGTERM ends `watch` without deregistering."""
    _set(publisher.Publisher, "withdraw", lambda self: None)


@_bug("tokens", "exit_code")
def token_stands_still() -> None:
    """Every acquisition of a label gets the same fencing token."""
    _set(lease.Lease, "token", property(lambda self: 7))


@_bug("belief")
def deadline_from_reply() -> None:
    """The holder counts its deadline from the store's answer."""

    def won(self: Any, record: Record, *_: float) -> lease.Lease:
        return lease.Lease(record, self._clock() + self._request.lease_timeout)

    _set(TicketLife, "_won", won)


@_bug("wakeup")
def lost_wakeup() -> None:
    """A waiter does not wake when its turn comes, it looks again some time later."""

    def sleep(
        store: Store, waiting: lease.Waiting, left: float, stop: Stop, _: Timings
    ) -> None:
        stop.wait(min(2.5, left))

    _set(acquire, "_await_change", sleep)


@_bug("exclusion", "order")
def one_slot_too_many() -> None:
    """One node more than `--slots` may start at a time."""
    real: Any = Queue.slots
    _set(Queue, "slots", property(lambda self: real.fget(self) + 1))


@_bug("hosts")
def hosts_forgets() -> None:
    """`hosts` leaves out the one that came up last."""

    def up_hosts(records: Any, *given: Any) -> list[str]:
        latest = sorted(records, key=lambda record: record.created)[:-1]
        return real(latest, *given)

    real = discovery.up_hosts
    _set(discovery, "up_hosts", up_hosts)


@_bug("exit_code")
def success_without_lease() -> None:
    """A waiter that was overtaken by a pause says that it has the lease."""
    real = Session.update

    def update(self: Any, seen: Record, value: str, ttl: float | None = None) -> Record:
        try:
            return real(self, seen, value, ttl)
        except RecordGone:
            return seen

    _set(Session, "update", update)


def main(argv: list[str]) -> None:
    """Run one command of the CLI with a bug in it."""
    from service_monitor.__main__ import main as run

    name, _, *rest = argv
    BUGS[name].plant()
    sys.argv = ["service-monitor", *rest]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])

"""A store that misbehaves on demand, on a clock that stands still until it is moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service_monitor.errors import Conflict, RecordGone, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.records import Record
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


def memory_store(
    clock: Callable[[], float], bounds: Bounds | None = None
) -> SqliteStore:
    """Return a store of this process alone; the real one, on a database in memory."""
    return SqliteStore(":memory:", bounds or Bounds(), clock=clock, boot=lambda: "boot")


class FlakyStore:
    """Passes calls on to a store, with one fault at a chosen call.

    "request": the call never arrives; "reply": it is carried out and its answer lost.
    `before` and `after` are seconds that pass around each call that writes.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.calls: list[str] = []
        self.fault: str | None = None
        self.fault_at = 0
        self.before = self.after = 0.0
        self.on_call: Callable[[str], None] = lambda name: None

    def plan(self, fault: str | None, at: int = 0) -> None:
        """Let the `at`th call from now fail so."""
        self.fault, self.fault_at, self.calls = fault, at, []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        def call(*args: Any, **settings: Any) -> Any:
            self.on_call(name)
            faulty = self.fault is not None and len(self.calls) == self.fault_at
            self.calls.append(name)
            if faulty and self.fault == "request":
                raise StoreUnavailable("request lost")
            self._clock.advance(self.before)
            result = real(*args, **settings)
            self._clock.advance(self.after)
            if faulty and self.fault == "reply":
                raise StoreUnavailable("reply lost")
            return result

        return call


class StillSession:
    """A session without a thread: it renews when `renew` is called."""

    def __init__(self, store: Store, record: Record, ttl: float) -> None:
        self._store = store
        self._ttl = ttl
        self.record = record
        self.ended = False

    def keeps(self, record: Record) -> bool:
        return self.record.created == record.created and not self.ended

    def update(self, seen: Record, value: str, ttl: float | None = None) -> Record:
        self.record = self._store.update(seen, value, ttl)
        self.ended = self.ended or ttl is not None
        return self.record

    def renew(self) -> None:
        if not self.ended:
            try:
                self.record = self._store.keep_alive(self.record, self._ttl)
            except (RecordGone, Conflict):
                self.ended = True

    def end(self) -> None:
        self.ended = True

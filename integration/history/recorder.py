"""What is known of a run: events of the workers, changes of the store, on one clock.

The clock is CLOCK_BOOTTIME in seconds, the same for all processes of a machine. Both
lists are kept in memory for the checker and, if wanted, as JSON lines for people.

Kinds of events, beginning and end of each command apart:

    enqueue, acquire            acquire-lease; with token, code, lease_timeout, and what
                                the process itself believed: decided, deadline, nonces
    hosts-begin, hosts          after a grant (its token): the list that was read
    watch-begin, watch-end
    release-begin, release      release-lease
    healthy, unhealthy, probe   the fake service was switched; it answered with 2xx
    release-seen, lost          the node found its lease gone, healthy or not
    fault, mended               what: kill, term, pause ..., target: process (then run
                                says which), store, or machine; id joins the two
    error, end
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from service_monitor.timing import now


@dataclass(frozen=True)
class Event:
    """One thing that a worker did or met; `run` numbers the commands, 0 is none."""

    at: float
    kind: str
    label: str = ""
    node: str = ""
    run: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        who = f"{self.label}/{self.node}" if self.node else self.label
        told = " ".join(f"{key}={value}" for key, value in self.data.items())
        return f"{who:12} {self.kind} {f'#{self.run} ' if self.run else ''}{told}"


@dataclass(frozen=True)
class Change:
    """One change in the store's own order; it took place between `after` and `at`.

    `value` is None when the record went; then `expired` tells how, if the store does.
    `deadline` is the record's own where the store has one to show (SQLite). A change
    with `seen` False was not watched but found by listing, after a "gap".
    """

    after: float
    at: float
    label: str
    kind: str  # "lease", "hosts", or "gap": changes before this one were missed
    name: str
    created: int
    version: int
    value: Mapping[str, Any] | None
    expired: bool | None = None
    deadline: float | None = None
    seen: bool = True

    def __str__(self) -> str:
        state = "gone" if self.value is None else self.value.get("state")
        if self.value is None and self.expired is not None:
            state = "expired" if self.expired else "deleted"
        return (
            f"{self.label}/{self.name:12} STORE {self.kind} {state} "
            f"created={self.created} version={self.version}"
        )


class Recorder:
    """Takes events from any thread, each as it happens."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._file: IO[str] | None = path.open("w", encoding="utf-8") if path else None
        self._numbers = itertools.count(1)
        self.events: list[Event] = []

    def number(self) -> int:
        """Give a number to a command or a fault, never used twice in a run."""
        return next(self._numbers)

    def __call__(
        self,
        kind: str,
        label: str = "",
        node: str = "",
        run: int = 0,
        at: float | None = None,
        **data: Any,
    ) -> Event:
        """Record an event that happens now."""
        with self._lock:
            event = Event(now() if at is None else at, kind, label, node, run, data)
            self.events.append(event)
            if self._file:
                self._file.write(json.dumps(asdict(event)) + "\n")
        return event

    def fault(self, what: str, target: str, **more: Any) -> int:
        """Record a fault's beginning; call before it takes effect."""
        number = self.number()
        self("fault", what=what, target=target, id=number, **more)
        return number

    def mended(self, number: int, *, struck: bool = True) -> None:
        """Record a fault's end, and whether it had an effect; call after it."""
        self("mended", id=number, struck=struck)

    def close(self) -> None:
        if self._file:
            self._file.close()


def write_lines(path: Path, items: Iterable[Event | Change]) -> None:
    """Keep events or changes as JSON lines."""
    lines = (json.dumps(asdict(item)) + "\n" for item in items)
    path.write_text("".join(lines), encoding="utf-8")


def read_events(path: Path) -> list[Event]:
    """Read what `Recorder` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Event(**json.loads(line)) for line in lines]


def read_changes(path: Path) -> list[Change]:
    """Read what `write_lines` wrote of an observer's changes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Change(**json.loads(line)) for line in lines]

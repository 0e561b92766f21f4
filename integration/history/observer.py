"""The store's own ordered log of changes, read beside the product and not through it.

When a change took place is known only between two bounds: `at` is when we learned of
it, `after` the beginning of the last quorum read that showed nothing newer than what we
had. So an observer that lags behind, like the store itself in an outage, makes bounds
wide and never wrong.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import requests
import urllib3

from integration.history.recorder import Change
from service_monitor.timing import now

POLL = 0.02  # seconds between two looks into the audit table
CALL = 3.0  # seconds for a request

# urllib3 raises its own and AttributeError when a stream is closed under its reader.
TROUBLE = (
    *(requests.RequestException, urllib3.exceptions.HTTPError, AttributeError),
    *(OSError, sqlite3.Error, ValueError),
)

Key = tuple[str, str, str]


class Observer(ABC):
    """Follows the store from its entering on; `changes` is the log so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.live: dict[Key, Change] = {}
        self.changed = threading.Condition()
        self.failed = ""  # a bug of ours: nothing is observed any more
        self._verified = now()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._open()
        for work in self._work():
            thread = threading.Thread(target=self._repeat, args=(work,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(CALL + 1)

    def wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Block until something holds that changes may bring about."""
        with self.changed:
            return self.changed.wait_for(holds, seconds)

    def ticket(self, label: str, name: str) -> Change | None:
        """Return the ticket as last seen."""
        return self.live.get((label, "lease", name))

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _work(self) -> list[Callable[[], None]]:
        """Return what to do again and again, each in a thread of its own."""

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                work()
            except TROUBLE:
                self._closing.wait(0.1)
            except BaseException as error:
                self.failed = repr(error)
                raise

    def _note(self, change: Change) -> None:
        """Take one change in; the lock of `changed` is held."""
        self.changes.append(change)
        key = change.label, change.kind, change.name
        if change.kind == "gap":
            self.live.clear()
        elif change.value is None:
            self.live.pop(key, None)
        else:
            self.live[key] = change


def split(path: str) -> Key | None:
    """Read `label/lease/name`; None for what is not judged, as a member's record."""
    parts = path.strip("/").split("/")
    if len(parts) != 3 or parts[1] not in ("lease", "hosts"):
        return None
    return parts[0], parts[1], parts[2]


def read(text: str) -> dict[str, Any]:
    """Read a record; what is none is kept as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"text": text}

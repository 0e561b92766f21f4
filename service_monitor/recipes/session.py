"""Keep one record alive in a thread beside whatever its owner is doing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from service_monitor.errors import Conflict, RecordGone, Stopped
from service_monitor.net.lacks import start_thread
from service_monitor.recipes.trouble import FAILURES
from service_monitor.records import Record
from service_monitor.stores.base import Store
from service_monitor.timing import now

RENEWALS = 3
"""Keepalives in one ttl, so that two in a row may fail: etcd's own client does so."""


class Session:
    """A record and the thread that renews it every third of its `ttl`, until `end`.

    It renews only while `vouch()` is true: a process that has stalled must not look
    alive. It gives up when the record is gone or somebody else's; `keeps` tells the
    owner. With `until` the last renewal lets the record end just then. Where that
    renewal failed it is tried again while the record may live, even if the record then
    ends later.

    `deadline` is when the record ends if nothing renews it: on this process's clock
    (`timing.now`), and no later than in the store. It moves with each renewal.

    Raises `LocalLack` where there is no thread for it.
    """

    def __init__(
        self,
        store: Store,
        record: Record,
        ttl: float,
        vouch: Callable[[], bool] = lambda: True,
        *,
        deadline: float = math.inf,
        until: float = math.inf,
    ) -> None:
        self._store = store
        self._record = record
        self._ttl = ttl
        self._vouch = vouch
        self._until = until
        self.deadline = deadline
        self.trouble = ""
        """Why the latest renewal that was due did not take place; "" if it did."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        start_thread(self._run)

    def keeps(self, record: Record) -> bool:
        """Tell whether it is this life of the record that is being renewed."""
        mine = self._record
        same = (mine.created, mine.handle) == (record.created, record.handle)
        return same and not self._ended.is_set()

    def update(self, seen: Record, value: str, ttl: float | None = None) -> Record:
        """Replace the value of the record as just `seen` in the store.

        As `Store.update`, and never at the same time as a renewal: it blocks until one
        under way is done. With a `ttl` the record begins another life, which this
        session does not renew: it ends.
        """
        with self._lock:
            self._record = self._store.update(seen, value, ttl)
            if ttl is not None:
                self._ended.set()
            return self._record

    @property
    def _may_live(self) -> bool:
        return now() < self.deadline < math.inf

    def end(self) -> None:
        """Stop renewing; the record stays for what is left of its ttl. Never blocks."""
        self._ended.set()

    def _run(self) -> None:
        period = self._ttl / RENEWALS
        pause, failed = period, False
        while (left := self._until - self._ttl - now()) > 0 or failed:
            if self._ended.wait(min(pause, left) if left > 0 else pause):
                return
            if not self._vouch():
                self.trouble = "the rounds of this process stalled"
                failed, pause = self._may_live, period / RENEWALS
                continue
            try:
                with self._lock:
                    if self._ended.is_set():
                        return
                    asked = now()
                    self._record = self._store.keep_alive(self._record, self._ttl)
                    self.deadline = min(asked + self._ttl, self._until)
                pause, failed, self.trouble = period, False, ""
            except (RecordGone, Conflict):
                self._ended.set()
            except (*FAILURES, Stopped) as error:
                self.trouble = str(error)
                # Hurry: the ttl is running.
                failed, pause = self._may_live, period / RENEWALS

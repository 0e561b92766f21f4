"""Keep the lease of one `run` alive by a thread, and see its loss in time.

The rounds of a watch may be in a call to a store that hangs, or in a probe, when the
lease ends. So a thread of its own looks at the clock, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from service_monitor.errors import LocalLack
from service_monitor.net.calls import IN_FLIGHT
from service_monitor.net.lacks import start_thread
from service_monitor.recipes.lease import HOLDER_TTL, Lease
from service_monitor.recipes.session import Session
from service_monitor.records import Ticket
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration, now

_TICK = 0.5
"""Seconds between two looks at the clock at the most: sleeping does not count a suspend
of the machine, the clock does."""
_PAUSE = 2.0
"""Seconds by which a look is late before that is called a pause of this process."""


class Holding:
    """A lease that is renewed while `vouch()` is true, up to its end.

    After `watch`, when nothing has renewed it in time, it is lost and `overdue` is
    called, from another thread: a moment before it may end in the store, so that what
    is under way then has ended, too.

    Both raise `LocalLack` where there is no thread.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        vouch: Callable[[], bool],
        overdue: Callable[[], None],
    ) -> None:
        ticket = Ticket.from_json(lease.record.value)
        self._timeout = ticket.lease_timeout if ticket else lease.end - now()
        self._until = lease.end
        self._early = min(IN_FLIGHT, max(0.0, lease.deadline - now()) / 10)
        self._overdue = overdue
        self._paused = 0.0
        self._looked = now()
        self._ended = threading.Event()
        self._lost = False
        self._lock = threading.Lock()
        self._session = Session(
            store,
            lease.record,
            HOLDER_TTL,
            vouch,
            deadline=lease.deadline,
            until=lease.end,
        )

    def watch(self) -> None:
        """Begin to look at the clock."""
        try:
            start_thread(self._run)
        except LocalLack:
            self.end()
            raise

    @property
    def lapsed(self) -> bool:
        """Tell whether it was lost, or may have ended in the store."""
        return self._lost or self._left <= 0

    @property
    def over(self) -> bool:
        """Tell whether it may last no longer, renewed or not."""
        return now() >= self._until - self._early

    def lose(self) -> bool:
        """End it as lost; return whether it had not ended before."""
        with self._lock:
            first = not self._ended.is_set()
            self._lost = self._lost or first
            self._ended.set()
        self._session.end()
        return first

    def end(self) -> None:
        """Renew it no more, and look no more. Never blocks."""
        with self._lock:
            self._ended.set()
        self._session.end()

    def why(self, trouble: str) -> str:
        """Say why it was not renewed; `trouble` the rounds' with the store."""
        trouble = trouble or self._session.trouble
        paused = self._paused + self._late()
        most = min(self._timeout, HOLDER_TTL)
        if paused >= most / 3:
            trouble = f"this process was paused for {format_duration(paused)}"
        if trouble or not self.over:
            return f"not renewed in time: {trouble or 'for no reason that was seen'}"
        return (
            f"--lease-timeout {format_duration(self._timeout)} is over and the service "
            "was not up; if it needs longer, use a longer one"
        )

    @property
    def _left(self) -> float:
        return self._session.deadline - self._early - now()

    def _late(self) -> float:
        late = now() - self._looked - _TICK
        return late if late > _PAUSE and not self._ended.is_set() else 0.0

    def _run(self) -> None:
        while (left := self._left) > 0:
            self._looked = now()
            if self._ended.wait(min(left, _TICK)):
                return
            self._paused += self._late()
        self._looked = now()
        if self.lose():
            self._overdue()

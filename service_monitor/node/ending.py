"""How this process is ended by force if a stop takes too long: set by `run`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service_monitor.net.calls import STOP_GRACE

START_WAIT = 1.0
"""Seconds that a signal waits for a COMMAND that is just being started; a stop that
comes after it waits with it."""


class Ending:
    """What whoever ends this process by force has to know and to do.

    `signals.obey` reads it at each signal, from a thread of its own, so each of these
    may be set at any time.
    """

    def __init__(self, leave: Callable[[int], object] = lambda code: None) -> None:
        self.leave = leave
        """End the process with an exit code, at once; does nothing where the process
        is not the command's own, as in a test."""
        self.forced_after = STOP_GRACE + 1
        """Seconds from a stop until the process is ended by force: longer than all
        that the stop may take of itself."""
        self.last_act: Callable[[], None] = lambda: None
        """What is done just before the process is ended by force."""
        self.pass_on: Callable[[int], bool] = lambda number: False
        """Send COMMAND a signal that is its own business; return whether COMMAND
        runs."""
        self.also_stops: int | None = None
        """A signal that is a stop although it would be COMMAND's own business."""
        self._starting = threading.Lock()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold signals back while COMMAND is started, and is made known here."""
        with self._starting:
            yield

    def to_command(self, number: int) -> bool:
        """Send COMMAND a signal that is its own business; return whether it runs.

        Blocks for `START_WAIT` at the most, if it is just being started: a reload in
        that moment would else pass for a stop.
        """
        held = self._starting.acquire(timeout=START_WAIT)
        try:
            return self.pass_on(number)
        finally:
            if held:
                self._starting.release()

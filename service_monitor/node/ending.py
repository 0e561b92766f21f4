"""What is done last: how this process ends when the stop takes too long."""

from __future__ import annotations

from collections.abc import Callable

from service_monitor.net.calls import STOP_GRACE


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

"""What each command gets from its process: stop, time bounds, forced end, timings."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.net.calls import Bounds
from service_monitor.net.stop import Stop
from service_monitor.node.ending import Ending
from service_monitor.recipes.timings import TIMINGS, Timings


@dataclass(frozen=True)
class Process:
    """What bounds a command's calls, what is done last, and how often to look."""

    bounds: Bounds
    ending: Ending
    timings: Timings = TIMINGS

    @property
    def stop(self) -> Stop:
        """Return the request to end that the signals make."""
        return self.bounds.stop

"""What a command is given of the process that it runs in."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.net.calls import Bounds
from service_monitor.net.stop import Stop
from service_monitor.node.ending import Ending


@dataclass(frozen=True)
class Process:
    """What bounds the calls of the command, and what is done last."""

    bounds: Bounds
    ending: Ending

    @property
    def stop(self) -> Stop:
        """Return the request to end that the signals make."""
        return self.bounds.stop

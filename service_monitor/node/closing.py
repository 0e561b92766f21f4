"""The last that is remembered of a process: how its service ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals

from service_monitor.errors import (
    AcquireTimeout,
    CannotStart,
    IdInUse,
    LeaseLost,
    Stopped,
)
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.recipes.chronicle import Chronicle
from service_monitor.recipes.trouble import FAILURES

log = logging.getLogger(__name__)


def close(chronicle: Chronicle, bounds: Bounds, *, withdrawn: bool) -> None:
    """Write how it ended; see `Chronicle.end`. Never raises.

    Blocks for `STOP_GRACE` at the most, and within another scope for what that has
    left.
    """
    try:
        with bounds.within(STOP_GRACE):
            chronicle.end(_name(bounds.stop.signal), withdrawn=withdrawn)
    except (*FAILURES, Stopped) as error:
        log.warning("cannot write down how it ended: %s", error)


def _name(signal: int | None) -> str:
    if signal is None:
        return ""
    try:
        return Signals(signal).name
    except ValueError:  # a real-time one
        return f"signal {signal}"


@contextmanager
def remembering_failure(chronicle: Chronicle, bounds: Bounds) -> Iterator[None]:
    """Write down that the start in this scope came to nothing, where it raises that.

    Where another process has the service id, that is not ours to write.
    """
    try:
        yield
    except (AcquireTimeout, LeaseLost, CannotStart, Stopped) as error:
        if not isinstance(error, IdInUse):
            if not isinstance(error, Stopped):
                chronicle.ended_by(str(error))
            close(chronicle, bounds, withdrawn=False)
        raise

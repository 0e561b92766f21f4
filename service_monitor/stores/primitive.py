"""One deadline for a primitive, however many requests it takes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from service_monitor.net.calls import Bounds
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.timing import now

P = ParamSpec("P")
R = TypeVar("R")


class Bound(threading.local):
    """When the primitive that this thread is in has to end; None outside of one."""

    until: float | None = None

    def seconds(self, bounds: Bounds) -> float:
        """Return the seconds that its next request may take."""
        most = CALL_TIMEOUT if self.until is None else self.until - now()
        return min(most, bounds.time_left())


class _Bounded(Protocol):
    _bound: Bound


S = TypeVar("S", bound=_Bounded)


def primitive(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Give all requests of a call of this method `CALL_TIMEOUT` seconds together.

    What one primitive asks of another counts for the first.
    """

    @functools.wraps(method)
    def bounded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._bound.until is not None:
            return method(self, *args, **kwargs)
        self._bound.until = now() + CALL_TIMEOUT
        try:
            return method(self, *args, **kwargs)
        finally:
            self._bound.until = None

    return bounded

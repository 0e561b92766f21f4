"""One deadline for a primitive on every store, however many requests it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from service_monitor.net.calls import Bounds

P = ParamSpec("P")
R = TypeVar("R")


class _Bounded(Protocol):
    _bounds: Bounds
    _call_timeout: float


S = TypeVar("S", bound=_Bounded)


def primitive(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """Give all requests of a call of this method `_call_timeout` seconds together.

    In there `self._bounds.time_left()` says how many are left. What one primitive asks
    of another counts for the first.
    """

    @functools.wraps(method)
    def bounded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._bounds.within_one_call(self._call_timeout):
            return method(self, *args, **kwargs)

    return bounded

"""Scenes in real time, played again when this machine has spoilt them by a pause."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, Self

from service_monitor.errors import StoreError
from service_monitor.timing import now

P = ParamSpec("P")
TRIES = 5
_TICK = 0.01


class Ticks:
    """Measures for how long no thread of this process got its turn, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _tick(self) -> None:
        seen = now()
        while not self._over.is_set():
            time.sleep(_TICK)
            seen, before = now(), seen
            self.longest = max(self.longest, seen - before)


def undisturbed(most: float) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Play a scene again that failed while this process stood still for `most` seconds.

    Such a failure proves nothing; any other one counts at once. The scene keeps nothing
    from one try to the next.
    """

    def decorate(scene: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(scene)
        def played(*args: P.args, **settings: P.kwargs) -> None:
            for left in reversed(range(TRIES)):
                with Ticks() as ticks:
                    try:
                        scene(*args, **settings)
                        return
                    except (AssertionError, StoreError):
                        if ticks.longest < most or not left:
                            raise

        return played

    return decorate

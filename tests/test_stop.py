"""One way to ask for the end, which reaches all that sleep."""

from __future__ import annotations

import threading

from integration.support.commands import HANG
from service_monitor.net.stop import Stop
from service_monitor.timing import now


def test_a_sleep_ends_with_the_stop_or_its_waker() -> None:
    """A pause of five minutes would hold up the end."""
    stop, begun, waker = Stop(), now(), threading.Event()
    waker.set()
    stop.wait(HANG, waker)
    stop.wait(-1)
    stop.wait(0.01)
    timer = threading.Timer(0.1, stop.request)
    timer.start()
    stop.wait(HANG)
    timer.join()
    stop.wait(HANG)
    assert now() - begun < HANG / 2


def test_nothing_is_kept_of_a_wait() -> None:
    """A `watch` would grow with each second that it runs."""
    stop = Stop()
    for _ in range(3):
        stop.wait(0)
    assert not stop._wakers

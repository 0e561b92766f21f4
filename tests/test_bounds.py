"""What bounds a call: the stop, and the scope that the call is in."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from integration.support.commands import HANG
from service_monitor.errors import Stopped
from service_monitor.net import calls
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.lacks import start_thread
from service_monitor.net.stop import Stop
from service_monitor.timing import now


@pytest.fixture
def stop(bounds: Bounds) -> Stop:
    return bounds.stop


def later(stop: Stop, seconds: float = 0.1) -> threading.Timer:
    timer = threading.Timer(seconds, stop.request, [15])
    timer.start()
    return timer


def test_a_stop_ends_a_wait_at_once(
    bounds: Bounds, stop: Stop, release: threading.Event
) -> None:
    """`systemctl stop` would hang while a node queues."""
    begun, timer = now(), later(stop)
    with pytest.raises(Stopped):
        bounded(lambda: release.wait(HANG), HANG, bounds, waits=True)
    assert now() - begun < calls.STOP_GRACE
    timer.join()


def test_a_write_on_its_way_may_still_be_answered(
    bounds: Bounds, release: threading.Event
) -> None:
    """A ticket whose write was under way at SIGTERM would stay behind."""
    timer = later(bounds.stop, 0.05)

    def write() -> str:
        timer.join()
        release.wait(0.1)
        return "written"

    assert bounded(write, HANG, bounds) == "written"


def test_a_call_does_not_outlast_the_grace(
    stop: Stop, release: threading.Event
) -> None:
    """A store that hangs would make the service manager kill us."""
    bounds = Bounds(stop, grace=0.1)
    timer = later(stop, 0.05)
    with pytest.raises(Stopped):
        bounded(lambda: release.wait(HANG), HANG, bounds)
    timer.join()
    called = []
    with pytest.raises(Stopped):
        bounded(lambda: called.append(1), HANG, bounds)
    assert called == []


def test_the_grace_is_shared_among_endpoints(
    bounds: Bounds, stop: Stop, release: threading.Event
) -> None:
    """With one member dead no ticket would be taken back, though another is alive."""
    stop.request(15)
    with pytest.raises(TimeoutError):
        bounded(lambda: release.wait(HANG), 0.1, bounds)
    assert bounded(lambda: "deleted", 0.1, bounds) == "deleted"


def test_nothing_new_is_waited_for_after_a_stop(bounds: Bounds, stop: Stop) -> None:
    """The end would take one more round."""
    stop.request(15)
    called: list[int] = []
    with pytest.raises(Stopped):
        bounded(lambda: called.append(1), HANG, bounds, waits=True)
    assert called == []


def test_the_commands_deadline_bounds_every_call(
    bounds: Bounds, release: threading.Event
) -> None:
    """acquire-lease would outlast its --acquire-timeout by a whole call."""
    with bounds.within(0.1):
        begun = now()
        with pytest.raises(TimeoutError):
            bounded(lambda: release.wait(HANG), HANG, bounds)
        assert now() - begun < HANG / 2
        called: list[int] = []
        with pytest.raises(TimeoutError):
            bounded(lambda: called.append(1), HANG, bounds)
        assert called == []
    with bounds.within(HANG):
        assert 0 < bounds.time_left() <= HANG
        assert bounded(lambda: 1, HANG, bounds) == 1


def test_the_nearer_end_counts_and_the_outer_one_comes_back(bounds: Bounds) -> None:
    """A step with a bound of its own would lift that of the whole command."""
    with bounds.within(HANG):
        with bounds.within(2 * HANG):
            assert bounds.time_left() <= HANG
        with suppress(KeyError), bounds.within(0):
            assert bounds.time_left() <= 0
            raise KeyError
        assert 0 < bounds.time_left() <= HANG
    assert bounds.time_left() == math.inf


def test_a_scope_bounds_its_own_thread_and_those_it_starts(bounds: Bounds) -> None:
    """A watch's keepalive would end with a step that takes too long, or a ticket's
    hang on where the command is to end."""
    entered, left = threading.Event(), threading.Event()
    found: list[float] = []

    def look() -> None:
        entered.wait(HANG)
        found.append(bounds.time_left())
        left.set()

    start_thread(look)
    with bounds.within(0.1):
        entered.set()
        left.wait(HANG)
        assert found == [math.inf]
        assert bounded(bounds.time_left, HANG, bounds) <= 0.1
        left.clear()
        start_thread(look)
    left.wait(HANG)
    assert found[1] <= 0.1


def test_closing_shares_what_undoing_has_left(bounds: Bounds) -> None:
    """A store that hangs would take the time of both, one after the other."""
    with bounds.within_the_last():
        assert bounds.time_left() == math.inf
    with bounds.within(HANG), bounds.within(0.1):
        pass
    with bounds.within(0.2):
        pass
    with bounds.within_the_last():
        assert bounds.time_left() <= 0.2


def test_the_grace_begins_anew_after_a_stop_that_was_obeyed(stop: Stop) -> None:
    """A `run` would have no time left to give its lease back after its COMMAND."""
    bounds = Bounds(stop, grace=0.1)
    stop.request(15)
    time.sleep(0.1)
    assert bounds.time_left() <= 0
    stop.resume()
    assert bounds.time_left() == math.inf
    stop.request(2)
    assert 0 < bounds.time_left() <= 0.1
    assert (stop.signal, stop.signals) == (2, 2)


def test_the_first_signal_counts(bounds: Bounds, stop: Stop) -> None:
    """The exit code would tell of another signal, and the grace begin anew."""
    assert not stop.requested
    stop.check()
    stop.request(15)
    left = bounds.time_left()
    stop.request(2)
    assert stop.requested
    assert stop.signal == 15
    assert bounds.time_left() <= left
    with pytest.raises(Stopped):
        stop.check()


def test_waiting_costs_no_time_of_the_processor(
    bounds: Bounds, stop: Stop, release: threading.Event
) -> None:
    """A `watch` beside each service would take a whole core."""
    begun, used = now(), time.thread_time()
    stop.wait(0.2)
    for _ in "before the stop", "after it":
        with pytest.raises(TimeoutError):
            bounded(lambda: release.wait(HANG), 0.2, bounds)
        stop.request(15)
    timer = threading.Timer(0.1, release.set)
    timer.start()
    assert bounded(lambda: release.wait(HANG), HANG, bounds)
    timer.join()
    assert now() - begun >= 0.7
    assert time.thread_time() - used < 0.1


def test_a_stop_takes_less_than_two_seconds() -> None:
    """The image promises that SIGTERM ends it within 2 s."""
    assert calls.STOP_GRACE < 2


def test_one_stop_reaches_every_thread(
    bounds: Bounds, stop: Stop, release: threading.Event
) -> None:
    """A keepalive would go on beside the end."""

    def call(_: int) -> str:
        try:
            bounded(lambda: release.wait(HANG), HANG, bounds, waits=True)
        except Stopped:
            return "stopped"
        return "missed"

    begun, timer = now(), later(stop)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(call, range(20))) == {"stopped"}
    assert now() - begun < HANG / 2
    timer.join()


def test_a_call_under_way_leaves_time_to_undo_it() -> None:
    """SIGTERM while the store hangs would leave the ticket, with no second to spare."""
    bounds = Bounds()
    released = threading.Event()
    threading.Timer(0.1, bounds.stop.request, (15,)).start()
    begun = now()
    with pytest.raises(Stopped):
        bounded(lambda: released.wait(20), 20, bounds)
    assert now() - begun < calls.STOP_GRACE
    assert bounded(lambda: "undone", 5, bounds) == "undone"
    released.set()

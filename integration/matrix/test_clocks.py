"""The fault matrix: wall clocks that are wrong."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta

import pytest

from integration.faults.processes import Command, Commands
from integration.matrix.scenes import LEASE, SLACK, by_way_of, node, release, states

pytestmark = pytest.mark.timeout(120, func_only=True)


SHIFTED = """
import datetime, runpy, sys, time

shift = float(sys.argv.pop(1))
now, now_ns, get, real = time.time, time.time_ns, time.clock_gettime, datetime.datetime
time.time = lambda: now() + shift
time.time_ns = lambda: now_ns() + int(shift * 1e9)
time.clock_gettime = lambda clock: get(clock) + shift * (clock == time.CLOCK_REALTIME)


class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=shift)


datetime.datetime = Shifted
runpy.run_module("service_monitor", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.promise(7)
def test_clocks_an_hour_off(
    run: Commands, sqlite: Commands, stack: ExitStack, chance: random.Random
) -> None:
    """A node with a wrong clock would jump the queue, or hold it up for an hour."""
    clocks = [-3600, 0, 3600]
    chance.shuffle(clocks)
    nodes: list[list[Command]] = [[], []]
    for number, clock in enumerate(clocks, 1):
        options = (f"es-{number}", f"--lease-timeout={LEASE if number > 1 else 60}s")
        cli = (sys.executable, "-c", SHIFTED, str(clock))
        for queue, on in zip(nodes, (run, sqlite), strict=True):
            shifted = stack.enter_context(by_way_of(on, *cli))
            queue.append(node(shifted, "acquire-lease", *options))
        for queue in nodes:
            queue[-1].wait_said("position" if number > 1 else "has the lease")
            told = datetime.fromisoformat(queue[-1].stderr[:19])
            apart = told - datetime.now() - timedelta(seconds=clock)
            assert abs(apart) < timedelta(minutes=5)
    released = time.monotonic()
    for on in run, sqlite:
        assert [*states(on)] == ["es-1", "es-2", "es-3"]
        release(on, "es-1")
    for _, second, _ in nodes:
        assert second.wait() == 0, second  # and then it dies
    for _, second, third in nodes:
        assert third.wait() == 0, third
        assert second.ended
        assert third.ended
        assert third.ended - released > LEASE
        assert third.ended - second.ended < LEASE + SLACK, third

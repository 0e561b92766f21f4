"""What DynamoDB costs: many waiters, and the units of docs/dynamodb.md."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from integration.dynamodb.clients import opened
from integration.faults.processes import Commands
from integration.images import ROOT
from integration.support.commands import HANG
from integration.support.dynamodb import (
    DynamoDB,
)
from integration.support.loopback import Loopback, answering, status
from service_monitor.cli.app import main
from service_monitor.net.calls import Bounds
from service_monitor.timing import now


def test_a_hundred_waiters_are_a_handful_of_looks(
    url: str, label: str, asked: Counter[str]
) -> None:
    """Waiting would be throttled, and dearer than the cluster."""
    store = opened(url)
    records = [store.create(f"{label}/{n:03}", "1", 300) for n in range(100)]
    snapshot = store.list(f"{label}/")
    bounds = Bounds()
    waiters = [opened(url, bounds) for _ in range(3)]
    seconds = 8.0

    def wait(number: int) -> None:
        ahead, waiter = records[number], waiters[number % 3]
        until = now() + seconds
        while (left := until - now()) > 0:
            waiter.wait(ahead.key, snapshot, min(5.0, left), gone=True)

    before = asked["get_item"]
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(99)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert (asked["get_item"] - before) / seconds < 12


@contextmanager
def metered(dynamodb: DynamoDB) -> Iterator[Callable[[], tuple[int, int]]]:
    """Give a function that tells the read and write units used in the block."""
    before: dict[str, int] = dynamodb.control("usage")
    after: dict[str, int] = {}
    yield lambda: (after["read"] - before["read"], after["write"] - before["write"])
    after |= dynamodb.control("usage")


def test_the_documented_units_are_the_real_ones(
    dynamodb: DynamoDB, url: str, label: str
) -> None:
    """The bill would not be what docs/dynamodb.md says."""
    service = Loopback(answering(status("200 OK")))
    with Commands(url, label) as run:
        assert run("acquire-lease", "--service-id=a", "--host=a").wait() == 0
        with metered(dynamodb) as start:
            waiter = run("acquire-lease", "--service-id=b", "--host=b")
            waiter.wait_said("waiting, position", HANG)
            with metered(dynamodb) as hand_over:
                # In here: while a process starts, the waiter looks again and again.
                argv = ("release-lease", f"--label={label}", f"--store={url}")
                assert main([*argv, "--service-id=a"]) == 0
                assert waiter.wait() == 0
            assert run("hosts").wait() == 0
            watch = run("watch", "--service-id=b", f"--monitor-url={service.url}")
            watch.wait_said("startup lease released", HANG)
            time.sleep(3)  # its member's record says so within a second
        with metered(dynamodb) as idle:
            time.sleep(20)
        watch.term()
        watch.wait()
    service.close()
    said = (ROOT / "docs/dynamodb.md").read_text()
    reads, writes = hand_over()
    assert reads <= documented(said, "one hand-over", "read") + 2  # polls under load
    assert writes <= documented(said, "one hand-over", "write")
    reads, writes = start()
    assert reads <= documented(said, "one start of a node", "read") + 8
    assert writes <= documented(said, "one start of a node", "write")
    reads, writes = idle()
    assert 180 * reads == pytest.approx(
        documented(said, "one watched service for an hour", "read"), rel=0.3
    )
    assert 180 * writes == pytest.approx(
        documented(said, "one watched service for an hour", "write"), rel=0.3
    )


def documented(page: str, what: str, kind: str) -> int:
    """Read a figure from the table of units."""
    (row,) = re.findall(rf"^\| {what}.*?\| ([\d,]+) \| ([\d,]+) \|", page, re.MULTILINE)
    return int(row[("read", "write").index(kind)].replace(",", ""))

"""The fault matrix: a hundred nodes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.faults.processes import HANG
from integration.history.etcd_observer import Etcd3Observer
from integration.history.launcher import Launcher
from integration.history.run import isolated
from integration.support.etcd import Etcd

pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.mark.promise(2)
def test_a_hundred_at_once(etcd: Etcd) -> None:
    """After a power cut some nodes would never start, or two at the same time."""
    url, count = isolated(etcd.url), 100
    with Etcd3Observer(url) as observer, Launcher() as launcher:

        def start(command: str, number: int, *options: str) -> str:
            common = (
                "--label=es",
                f"--store={url}",
                f"--service-id=es-{number % count}",
            )
            started = launcher.start([command, *common, *options], number)
            assert started.wait(100), f"{command} of es-{number % count} hangs"
            assert started.code == 0, started.stderr
            return started.stdout.strip()

        def turn(number: int) -> int:
            token = start("acquire-lease", number, "--print-token", "--host=es")
            start("release-lease", number + count, f"--token={token}")
            return int(token)

        with ThreadPoolExecutor(count) as pool:
            tokens = list(pool.map(turn, range(count)))
        assert observer.wait(lambda: not observer.live, HANG)
    queue: dict[str, int] = {}
    granted: dict[str, int] = {}
    holders: set[str] = set()
    for change in observer.changes:
        assert change.kind == "lease"
        queue.setdefault(change.name, change.created)
        if change.value is None:
            holders.discard(change.name)
        elif change.value["state"] == "held":
            assert change.name not in granted
            granted[change.name] = change.version
            holders.add(change.name)
        assert len(holders) <= 1
    assert [*granted] == sorted(queue, key=lambda name: queue[name])
    assert {f"es-{n}": token for n, token in enumerate(tokens)} == granted

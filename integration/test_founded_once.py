"""One founder on real stores: real processes, and one of them killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import pytest

from integration.support.cli import clean_environment
from integration.support.commands import started, wait_until
from integration.support.etcd import Etcd
from integration.support.loopback import Serve, answering, status, unused_port
from integration.support.stores import open_url
from service_monitor.net.calls import Bounds
from service_monitor.recipes.founder import Founder, founder_key
from service_monitor.stores.base import Store

pytestmark = pytest.mark.timeout(180)

SCRIPT = 'echo "$NAME $SERVICE_MONITOR_FIRST $$" >>"$SEEN"; exec sleep 120'


@pytest.fixture(params=["etcd", "etcd2", "sqlite"])
def url(request: pytest.FixtureRequest, etcd: Etcd, tmp_path: Path) -> str:
    """Give the address of each kind of store."""
    sqlite = f"sqlite://{tmp_path}/store.db"
    return {"etcd": etcd.url, "etcd2": etcd.url_v2, "sqlite": sqlite}[request.param]


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_url(url, Bounds(), {})
    yield opened
    opened.close()


@pytest.fixture
def monitored() -> Iterator[str]:
    """Give the URL of a service that is up."""
    serve = Serve()
    yield serve(answering(status("200 OK"))).url
    for server in serve.started:
        server.close()


class Nodes:
    """Starts nodes with --found=once, and reads what each was told."""

    def __init__(self, stack: ExitStack, url: str, label: str, seen: Path) -> None:
        self.stack = stack
        self.store_url = url
        self.label = label
        self.seen = seen

    def start(self, name: str, monitored: str, *options: str) -> Popen[str]:
        argv = ["run", f"--label={self.label}", f"--service-id={name}", *options]
        argv += [f"--host={name}", "--found=once", f"--monitor-url={monitored}"]
        env = clean_environment(
            SERVICE_MONITOR_STORE=self.store_url, SEEN=str(self.seen), NAME=name
        )
        argv += ["--", "sh", "-c", SCRIPT]
        return self.stack.enter_context(started(argv, env))

    def told(self) -> list[tuple[str, str, int]]:
        """Give name, FIRST and process of each start so far."""
        lines = self.seen.read_text().splitlines() if self.seen.exists() else []
        return [(n, f, int(pid)) for n, f, pid in map(str.split, lines)]


@pytest.fixture
def nodes(url: str, label: str, tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack, url, label, tmp_path / "seen")


def founder(store: Store, label: str) -> Founder | None:
    records = store.list(founder_key(label)).records
    return Founder.from_json(records[0].value) if records else None


def is_founded(store: Store, label: str) -> bool:
    found = founder(store, label)
    return found is not None and found.founded


def test_of_several_that_race_one_founds(
    nodes: Nodes, store: Store, label: str, monitored: str
) -> None:
    """Each of the slots would found a cluster of its own."""
    for number in range(3):
        nodes.start(f"n-{number}", monitored, "--slots=3")
    wait_until(lambda: len(nodes.told()) == 3, 60)
    assert sorted(first for _, first, _ in nodes.told()) == ["0", "0", "1"]
    assert is_founded(store, label)


def test_a_founder_that_was_killed_founds_again_and_nobody_else(
    nodes: Nodes, store: Store, label: str, monitored: str
) -> None:
    """Another would found beside the cluster that the first has on its disk."""
    silent = f"http://127.0.0.1:{unused_port()}/"
    killed = nodes.start("a", silent)
    wait_until(lambda: nodes.told(), 60)
    ((name, first, pid),) = nodes.told()
    assert (name, first) == ("a", "1")
    killed.kill()
    os.kill(pid, signal.SIGKILL)
    waiting = nodes.start("b", monitored, "--acquire-timeout=40s")
    assert waiting.wait(90) == 1
    assert waiting.stderr is not None
    assert "a began to found at" in waiting.stderr.read()
    assert len(nodes.told()) == 1
    nodes.start("b", monitored)
    nodes.start("a", monitored)
    wait_until(lambda: len(nodes.told()) == 3, 60)
    assert [(n, f) for n, f, _ in nodes.told()] == [("a", "1"), ("a", "1"), ("b", "0")]
    assert is_founded(store, label)


def test_a_store_that_lost_its_data_learns_it_again(
    nodes: Nodes, store: Store, label: str, monitored: str
) -> None:
    """A node with an empty disk would found a second cluster."""
    nodes.start("a", monitored, "--interval=1s")
    wait_until(lambda: is_founded(store, label), 60)
    for record in store.list(f"{label.lower()}/").records:
        store.delete(record)
    wait_until(lambda: is_founded(store, label), 60)

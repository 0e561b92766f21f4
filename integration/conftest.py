"""Fixtures of the integration tests: servers, containers, names."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import requests

from integration import images
from integration.support.dynamodb import ELSEWHERE, DynamoDB, start_dynamodb
from integration.support.engine import LABELS, docker_available
from integration.support.etcd import Etcd, start_etcd
from integration.support.interrupts import uninterrupted
from integration.support.stores import open_url
from service_monitor.net.calls import Bounds
from service_monitor.stores.base import Store

if TYPE_CHECKING:
    from docker.models.containers import Container

    from integration.support.store_contract import MakeStore

# Helpers that assert show what they compared; none of them is imported above.
for _helper in (
    *("faults.scenes", "matrix.scenes", "simulation.verdicts"),
    *(
        "support.store_contract",
        "support.durable_contract",
        "systemd.machines",
        "history.sanity",
    ),
):
    pytest.register_assert_rewrite(f"integration.{_helper}")

LONGEST_FIRST = (
    *("faults/test_connections.py", "simulation/test_simulator.py", "test_run.py"),
    *("test_compose.py", "test_image.py", "history/test_all_fails.py"),
    *("test_namespaces.py", "simulation/test_deaths.py"),
    *("test_restart.py", "dynamodb/test_contract.py", "test_stores.py"),
    *("simulation/test_starts.py", "test_discovery.py", "dynamodb/test_cluster.py"),
    *("faults/test_members.py", "faults/test_commands.py", "test_secure.py"),
    *("test_lacks.py", "test_founder.py", "dynamodb/test_cost.py"),
    *("systemd/test_systemd.py", "dynamodb/test_faults.py", "dynamodb/test_time.py"),
    # Judged by the 2 s of a stop: not beside the making of images and twenty nodes.
    "history/test_processes_fail.py",
)
"""Files that take 20 s and more: what starts last should not be what ends last."""

REQUIRED = os.environ.get("REQUIRE_DOCKER") == "1"
NEEDS_ROOT = "needs root"
EXCUSES = (NEEDS_ROOT, ELSEWHERE)
"""One is in the reason of a skip that an engine is no help against."""
_NO_ENGINE = "no Docker engine answers"
_HINT = "start an engine; REQUIRE_DOCKER=1 makes each of them a failure"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and let SIGTERM end a session as Ctrl-C does.

    And let `nohup` be for the session, and not for the commands that it starts.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not inherited
    config.addinivalue_line("markers", "docker: needs an engine that runs containers")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add how often to run the scenes of the fault matrix."""
    parser.addoption("--repeat", type=int, default=1, help="rounds of the fault matrix")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for its `round` as often as --repeat says."""
    if "round" in metafunc.fixturenames:
        metafunc.parametrize("round", range(metafunc.config.getoption("repeat")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Docker, and put the longest files first.

    The making of images does not count as a test's time.
    """
    here = Path(__file__).parent
    first = {here / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    for item in items:
        if {"docker", "image"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.docker)
        own = item.get_closest_marker("timeout")
        if item.get_closest_marker("docker") and not own:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.hookimpl(tryfirst=True)  # before any fixture starts something
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or with REQUIRE_DOCKER=1 fail, what needs an engine that is not there."""
    if item.get_closest_marker("docker") and not docker_available():
        if REQUIRED:
            pytest.fail(_NO_ENGINE, pytrace=False)
        pytest.skip(f"{_NO_ENGINE}; {_HINT}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Turn each skip, but for want of root, into a failure with REQUIRE_DOCKER=1."""
    return (yield from _no_skips())


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Turn the skip of a whole module into a failure with REQUIRE_DOCKER=1."""
    return (yield from _no_skips())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Let a run without containers not look like one with them."""
    skips = terminalreporter.stats.get("skipped", ())
    lost = sum(_NO_ENGINE in str(report.longrepr) for report in skips)
    if lost:
        terminalreporter.section("NO CONTAINERS", red=True, bold=True)
        terminalreporter.line(f"{lost} tests about containers were not run: {_HINT}")


def _no_skips() -> Generator[None, Any, Any]:
    report = yield
    excused = any(excuse in str(report.longrepr) for excuse in EXCUSES)
    excused = excused or hasattr(report, "wasxfail")
    if REQUIRED and report.skipped and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped, which REQUIRE_DOCKER=1 forbids: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """Give the server that all tests share; tell them apart by `label`."""
    kind: Literal["docker"] | None = "docker" if REQUIRED else None
    with start_etcd(prefer=kind, unsafe_no_fsync=True) as server:  # disks may be slow
        yield server


@pytest.fixture
def fresh_etcd() -> Iterator[Etcd]:
    """Give a server of the test's own, to stop, pause or restart."""
    with start_etcd(prefer="docker" if REQUIRED else None) as server:
        yield server


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[DynamoDB]:
    """Give a server whose faults, meter and log are ours; each test has its table."""
    if os.environ.get(ELSEWHERE):
        pytest.skip(f"needs a server of ours, and {ELSEWHERE} names another one")
    with start_dynamodb() as server:
        yield server


@pytest.fixture
def make_store(url: str) -> Iterator[MakeStore]:
    """Open stores at the `url` that the module gives; they end with the test."""
    opened: list[Store] = []

    def make(bounds: Bounds | None = None) -> Store:
        opened.append(open_url(url, bounds or Bounds(), {}))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    """Give a label that no other test uses, and that says which test it belongs to."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    return f"{name[:100]}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def docker() -> None:
    """Ask for a Docker engine; without one the test is skipped or fails."""


@pytest.fixture(scope="session")
def image() -> str:
    """Build the project's image once and give its tag."""
    return images.build_project()


@dataclass(frozen=True)
class Result:
    """How a container ended."""

    code: int
    stdout: str
    stderr: str


class Containers:
    """Runs containers of the project's image as `docker run` does; removes them all."""

    def __init__(self, image: str) -> None:
        import docker

        self.image = image
        self.client = docker.from_env()
        self._mine: list[Container] = []

    def start(self, *command: str, **options: Any) -> Container:
        """Start a container; `options` are those of docker-py's `create`."""
        options = {"image": self.image, "labels": LABELS, **options}
        with uninterrupted():
            container = self.client.containers.create(command=list(command), **options)
            self._mine.append(container)
        container.start()
        return container

    def result(self, container: Container, timeout: float = 90) -> Result:
        """Wait for a container's end; fail the test after `timeout` seconds."""
        try:
            code = container.wait(timeout=timeout)["StatusCode"]
        except requests.RequestException:  # docker-py's way to say so
            tail = str(container.logs(tail=15), errors="replace")
            pytest.fail(f"still running after {timeout:g} s; its log ends:\n{tail}")
        out, err = (
            str(container.logs(stdout=first, stderr=not first), errors="replace")
            for first in (True, False)
        )
        return Result(code, out, err)

    def run(self, *command: str, **options: Any) -> Result:
        """Start a container and wait for its end."""
        return self.result(self.start(*command, **options))

    def remove_all(self) -> None:
        """Remove by id what this object has started."""
        with uninterrupted():
            for container in self._mine:
                container.remove(force=True, v=True)
            self.client.close()


@pytest.fixture
def containers(image: str) -> Iterator[Containers]:
    """Run containers that are gone after the test."""
    mine = Containers(image)
    try:
        yield mine
    finally:
        mine.remove_all()

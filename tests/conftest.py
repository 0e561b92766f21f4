"""What the unit tests share: a clean environment, servers, and stand-ins."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.support.bench import Bench
from integration.support.commands import Outcome, Run
from integration.support.fakes import Clock, memory_store
from integration.support.fixtures import certificates, serve, strangers
from integration.support.loopback import Serve, answering, status
from integration.support.run_script import RunScript
from service_monitor import text
from service_monitor.cli.app import main
from service_monitor.net.calls import Bounds
from service_monitor.net.stop import Stop
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore

if TYPE_CHECKING:
    import responses

    from integration.support.stubbed_dynamodb import StubbedService

__all__ = ["certificates", "serve", "strangers"]  # pytest finds them here


def pytest_configure() -> None:
    """Show what asserts compared; let `nohup` be for the tests, not their commands."""
    for contract in ("store_contract", "durable_contract"):
        pytest.register_assert_rewrite(f"integration.support.{contract}")
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not inherited


@pytest.fixture(autouse=True)
def _hermetic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this machine's settings out, and a test's logging and secrets to itself."""
    text.forget_hidden()
    for name in os.environ:
        ours = name.startswith(("SERVICE_MONITOR_", "ETCDCTL_", "AWS_"))
        if ours or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE":
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    root, own = logging.getLogger(), logging.getLogger("service_monitor")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    own.setLevel(own_level)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def bounds() -> Bounds:
    """Give what a command of this process would hand to its store."""
    return Bounds()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Give what hanging functions wait for, so that none outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = SqliteStore(str(path), Bounds())
    yield store
    store.close()


@pytest.fixture
def run(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Give a function that runs a command in this process, on a store of its own."""

    def run(
        *argv: str,
        stop: Stop | None = None,
        env: Mapping[str, str] | None = None,
        timings: Timings = TIMINGS,
    ) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setenv("SERVICE_MONITOR_STORE", f"sqlite://{path}")
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = main(argv, stop, timings=timings)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still until it is moved."""
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> SqliteStore:
    """Give a store in memory, on the test's own `clock`."""
    return memory_store(clock)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a watcher with all that it needs, which ends with the test."""
    made = Bench(tmp_path / "s.db")
    yield made
    made.end()


@pytest.fixture
def sound(path: Path, serve: Serve) -> RunScript:
    """Give a `run` whose service is up at once."""
    return RunScript(path, serve(answering(status("200 OK"))).url)


@pytest.fixture
def booting(path: Path) -> RunScript:
    """Give a `run` whose service never comes up."""
    return RunScript(path, "tcp://127.0.0.1:1")


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    """Give the answers to what is sent through `requests`."""
    import responses  # only where it is used: it takes a while

    with responses.RequestsMock() as mocked:
        yield mocked


@pytest.fixture
def dynamo(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubbedService]:
    """Give a DynamoDB store whose service says what it is told to, and no more."""
    from integration.support.stubbed_dynamodb import StubbedService  # as boto3 does

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    service = StubbedService(Bounds())
    yield service
    service.stub.assert_no_pending_responses()
    service.store.close()

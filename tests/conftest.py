"""What the unit tests share: a clean environment, and servers on loopback."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from integration.support.commands import Outcome, Run
from integration.support.fixtures import certificates, serve, strangers
from service_monitor.cli.app import main
from service_monitor.net.calls import Bounds
from service_monitor.net.stop import Stop
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore

__all__ = ["certificates", "serve", "strangers"]  # pytest finds them here


def pytest_configure() -> None:
    """Show what asserts compared; let `nohup` be for the tests, not their commands."""
    pytest.register_assert_rewrite("integration.support.store_contract")
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not inherited


@pytest.fixture(autouse=True)
def _hermetic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this machine's settings out, and a test's logging to itself."""
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
        *argv: str, stop: Stop | None = None, env: Mapping[str, str] | None = None
    ) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setenv("SERVICE_MONITOR_STORE", f"sqlite://{path}")
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = main(argv, stop)
        return Outcome(code, *capsys.readouterr())

    return run

"""How long `hosts` may list what is not there: promise 6, on every store."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from integration.faults.processes import Command, Commands, wait_for
from integration.support.etcd import Etcd
from integration.support.loopback import (
    Loopback,
    answering,
    hanging,
    status,
    unused_port,
)
from service_monitor.net.calls import STOP_GRACE

# The first may have to wait for the making of an image.
pytestmark = pytest.mark.timeout(120, func_only=True)

SOON = 10.0
"""Seconds on top of a documented worst case, for a loaded machine."""
INTERVAL, TIMEOUT, FALL = 1, 1, 2
NEVER = "--ttl=1h"
"""No record lapses meanwhile, so that it goes for no other reason."""


@pytest.fixture(params=["etcd", "etcd2", "sqlite"])
def run(
    request: pytest.FixtureRequest, etcd: Etcd, label: str, tmp_path: Path
) -> Iterator[Commands]:
    stores = {"etcd": etcd.url, "etcd2": etcd.url_v2}
    store = stores.get(request.param, f"sqlite://{tmp_path}/store.db")
    with Commands(store, label) as run:
        yield run


class Service:
    """Answers with 200, or when it is told to hang takes requests and says nothing."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self._server = Loopback(self._talk)
        self.url = self._server.url
        self.close = self._server.close

    def _talk(self, connection: socket.socket) -> None:
        (hanging if self.hangs.is_set() else answering(status("200 OK")))(connection)


@pytest.fixture
def service() -> Iterator[Service]:
    with closing(Service()) as service:
        yield service


def watch(run: Commands, name: str, url: str, *options: str) -> Command:
    rhythm = (f"--interval={INTERVAL}s", f"--timeout={TIMEOUT}s", f"--fall={FALL}")
    own = (f"--service-id={name}", f"--host={name}", f"--monitor-url={url}")
    return run("watch", *own, *rhythm, *options)


def hosts(run: Commands) -> str:
    """Read whom `hosts` lists; it has to answer."""
    command = run("hosts")
    assert command.wait() == 0, command
    return command.stdout.strip()


def listed(run: Commands, name: str) -> None:
    wait_for(f"{name} in hosts", lambda: name in hosts(run).split(","))


@pytest.mark.promise(6)
def test_a_service_that_hangs_is_gone_in_time(run: Commands, service: Service) -> None:
    """New nodes would be told to join one that does not answer any more."""
    with closing(Loopback(answering(status("200 OK")))) as other:
        watch(run, "alive", other.url, NEVER)
        watch(run, "dead", f"http://127.0.0.1:{unused_port()}", NEVER)
        seen = watch(run, "hangs", service.url, NEVER)
        for name in "alive", "hangs":
            listed(run, name)
        service.hangs.set()
        most = FALL * (INTERVAL + TIMEOUT) + SOON
        wait_for("hosts without it", lambda: hosts(run) == "alive", most)
    assert "hangs is down: no answer within 1 s" in seen.stderr


@pytest.mark.promise(6)
def test_a_killed_watch_is_gone_within_its_ttl(run: Commands, service: Service) -> None:
    """A machine that lost its power would be joined for ever."""
    ttl = 6
    killed = watch(run, "a", service.url, f"--ttl={ttl}s")
    listed(run, "a")
    time.sleep(ttl + 1)
    assert hosts(run) == "a"  # it was kept alive
    killed.kill()
    wait_for("hosts without it", lambda: hosts(run) == "", ttl + SOON)


@pytest.mark.promise(6, 9)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_watch_is_gone_at_once(
    run: Commands, service: Service, number: signal.Signals
) -> None:
    """A node that was shut down in order would be told to others until its TTL."""
    stopped = watch(run, "a", service.url, NEVER)
    listed(run, "a")
    stopped.term() if number == signal.SIGTERM else stopped.interrupt()
    assert stopped.wait(STOP_GRACE + SOON) == 0, stopped
    assert hosts(run) == ""

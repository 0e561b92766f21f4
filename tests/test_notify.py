"""What the service manager and a health check are told."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from integration.support.commands import (
    WATCH,
    Run,
    environment,
    error_of,
    finish,
    started,
)
from integration.support.commands import wait_until as until
from integration.support.loopback import Serve, answering, status
from service_monitor.errors import AcquireTimeout, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.net.stop import Stop
from service_monitor.node.notify import QUEUED_FOR, Notifier
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.lease import Lease, Request
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore


class Manager:
    """Listens where systemd would."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self.heard: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096).decode():
            self.heard.append(message)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_it_is_ready_when_the_service_is_first_up(
    manager: Manager, path: Path, serve: Serve
) -> None:
    """Units ordered after it would start before there is anything to talk to."""
    states = iter(["503 Busy", "200 OK", "503 Busy", "200 OK"])
    url = serve(lambda peer: answering(status(next(states, "200 OK")))(peer)).url
    env = environment(path, NOTIFY_SOCKET=manager.address)
    argv = ["watch", "--label=es", "--service-id=a", f"--monitor-url={url}"]
    with started([*argv, "--interval=200ms", "--fall=1"], env) as running:
        until(lambda: manager.heard.count("STATUS=up: 200 OK") == 2)
        running.terminate()
        finish(running)
    heard = manager.heard
    assert heard[0].startswith("STATUS=down: ")
    assert heard.index("READY=1") > heard.index("STATUS=up: 200 OK")
    assert heard.count("READY=1") == 1


def test_a_waiter_says_why_and_asks_for_time(manager: Manager, store: Store) -> None:
    """systemd would kill a node that waits its turn, and nobody would see what for."""
    assert isinstance(Contender(store, Request("es", "a", "h")).step(), Lease)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    with pytest.raises(AcquireTimeout):
        acquire(store, Request("es", "b", "h"), 0.2, Bounds(), notifier)
    until(lambda: len(manager.heard) >= 2)
    assert manager.heard[:2] == [
        "STATUS=position 1, held by a (h)",
        f"EXTEND_TIMEOUT_USEC={int(QUEUED_FOR * 1_000_000)}",
    ]


def test_a_look_that_takes_many_calls_asks_for_time_in_between(
    manager: Manager, store: Store
) -> None:
    """A store that takes seconds for each call would get the waiter killed."""
    assert isinstance(Contender(store, Request("es", "a", "h")).step(), Lease)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    with pytest.raises(AcquireTimeout):
        acquire(store, Request("es", "b", "h"), 0.4, Bounds(), notifier)
    more = f"EXTEND_TIMEOUT_USEC={int(QUEUED_FOR * 1_000_000)}"
    until(lambda: manager.heard.count(more) > len(manager.heard) / 2)


def test_the_watchdog_follows_the_rounds(
    manager: Manager, path: Path, serve: Serve
) -> None:
    """A watch that hangs would never be restarted, or a sound one be killed."""
    url = serve(answering(status("200 OK"))).url
    env = environment(path, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="20000000")
    argv = ["watch", "--label=es", f"--monitor-url={url}", "--interval=50ms"]
    with started(argv, env):
        until(lambda: manager.heard.count("WATCHDOG=1") >= 6)


def test_a_watchdog_that_bites_the_sound_is_refused(run: Run) -> None:
    """systemd would kill a watch whose service is slow to answer, again and again."""
    outcome = run(*WATCH, env={"WATCHDOG_USEC": "5000000"})
    assert outcome.code == 2
    assert error_of(outcome).startswith("WatchdogSec of the unit is 5 s")
    assert Notifier({"WATCHDOG_USEC": "9" * 5000}).watchdog is None
    other = {"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getppid())}
    assert Notifier(other).watchdog is None


def test_the_heartbeat_is_good_until_the_next_is_due(tmp_path: Path) -> None:
    """A health check would have to guess how long silence is fine."""
    file = tmp_path / "beat"
    Notifier(heartbeat=str(file)).beat(60)
    assert 50 < file.stat().st_mtime - time.time() <= 60


def test_a_stalled_watch_lets_its_heartbeat_pass(path: Path, serve: Serve) -> None:
    """The engine would call a container healthy that does nothing any more."""
    url, file = serve(answering(status("200 OK"))).url, path.with_name("beat")
    argv = ["watch", "--label=es", f"--monitor-url={url}", f"--heartbeat-file={file}"]
    argv += ["--interval=100ms", "--ttl=3s"]
    with started(argv, environment(path)) as running:
        until(file.exists)
        first = file.stat().st_mtime
        until(lambda: file.stat().st_mtime > first)
        running.send_signal(signal.SIGSTOP)
        process = psutil.Process(running.pid)
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        last = file.stat().st_mtime
        assert last - time.time() < 60  # it passes if nothing moves it on
        time.sleep(1)  # ten times the interval
        assert file.stat().st_mtime == last
        running.send_signal(signal.SIGCONT)
        until(lambda: file.stat().st_mtime > last)


def test_who_does_not_listen_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken report would end the watch, or fill its log."""
    gone = str(tmp_path / "gone")
    notifier = Notifier({"NOTIFY_SOCKET": gone}, str(tmp_path / "no" / "beat"))
    for _ in range(3):
        notifier.ready()
        notifier.beat(1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    Notifier(heartbeat=str(pipe)).beat(1)
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot report to {gone}: No such file or directory",
        f"cannot report to {tmp_path}/no/beat: No such file or directory",
        f"cannot report to {pipe}: No such device or address",
    ]


def test_an_abstract_address(tmp_path: Path) -> None:
    """In many containers systemd's socket has no file."""
    name = f"service-monitor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).status("a\nREADY=1")
        assert sock.recv(100) == b"STATUS=a\\nREADY=1"


def test_who_waits_for_a_route_is_not_killed_for_it(
    manager: Manager, path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Type=notify: systemd would end a `watch` that starts before the network."""
    stop, tries = Stop(), 0

    def local_address(self: object) -> str:
        nonlocal tries
        tries += 1
        if tries == 2:
            stop.request(15)
        raise StoreUnavailable("no route")

    monkeypatch.setattr(SqliteStore, "local_address", local_address)
    assert run(*WATCH, stop=stop, env={"NOTIFY_SOCKET": manager.address}).code == 0
    until(lambda: f"EXTEND_TIMEOUT_USEC={round(QUEUED_FOR * 1e6)}" in manager.heard)
    assert "STATUS=waiting for a route: no route" in manager.heard

"""The rows of the fault matrix that a scene of their own shows best, on real processes.

`--repeat 20` plays each 20 times, each time at other moments, the same in every run.
"""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.conftest import NEEDS_ROOT
from integration.faults.processes import CLI, Command, Commands, wait_for
from integration.history.launcher import Launcher
from integration.history.observer import Etcd3Observer
from integration.history.run import isolated
from integration.support.certificates import Certificates
from integration.support.etcd import Etcd, uninterrupted
from integration.support.fixtures import certificates, serve, strangers
from integration.support.loopback import (
    Serve,
    Talk,
    answering,
    dripping,
    hanging,
    read_request,
    status,
)
from service_monitor.net.calls import STOP_GRACE, Bounds
from service_monitor.recipes.acquire import acquire
from service_monitor.recipes.lease import WAITER_TTL, Request
from service_monitor.stores.opening import open_store

__all__ = ["certificates", "serve", "strangers"]  # fixtures

pytestmark = pytest.mark.timeout(120, func_only=True)

SOON = 10.0
"""Seconds within which a command on a healthy store is done; a bound."""
STOPPED = 6.0
"""Seconds from a signal to the end, which are promised to be 2; a bound."""
LEASE = 2.0
"""Seconds after which a holder that died lets the next one in."""
DEAD_NAME = "etcd-1.dead.example"


@pytest.fixture(autouse=True)
def chance(round: int) -> random.Random:
    """Draw the moments of this round."""
    return random.Random(round)


@pytest.fixture
def run(etcd: Etcd, label: str) -> Iterator[Commands]:
    """Start commands on an etcd v3."""
    with Commands(etcd.url, label) as run:
        yield run


@pytest.fixture(scope="module")
def root() -> None:
    """Ask for what namespaces and mounts need."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip(f"{NEEDS_ROOT} for namespaces and mounts, and unshare")


def by_way_of(run: Commands, *cli: str) -> Commands:
    """Start commands on the same store and label so, in place of the plain CLI."""
    return Commands(run.store, run.label, cli)


def mounting(script: str) -> tuple[str, ...]:
    """Give a CLI that sees mounts of its own, made by a shell script."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *CLI)


def node(run: Commands, command: str, name: str, *options: str) -> Command:
    return run(command, f"--service-id={name}", f"--host={name}", *options)


def held(run: Commands, name: str, *options: str) -> Command:
    """Acquire the lease, which must be free."""
    command = node(run, "acquire-lease", name, *options)
    assert command.wait(SOON) == 0, command
    return command


def queued(run: Commands, name: str, *options: str) -> Command:
    """Start a waiter and return once it has seen its place."""
    command = node(run, "acquire-lease", name, *options)
    command.wait_said("waiting, position", SOON)
    return command


def release(run: Commands, name: str) -> None:
    command = run("release-lease", f"--service-id={name}")
    assert command.wait(SOON) == 0, command


def listed(run: Commands) -> str:
    command = run("hosts")
    assert command.wait(SOON) == 0, command
    return command.stdout.strip()


def failed(command: Command, code: int) -> str:
    """Wait for its failure; return the one line that tells the user why."""
    assert command.wait(SOON) == code, command
    assert command.stdout == "", command
    *log, line = command.stderr.splitlines()
    assert line.startswith("service-monitor: "), command
    assert not any(line.startswith(("Traceback", " ")) for line in log), command
    return line


def hears(pid: int) -> bool:
    """Tell whether a command has begun to take signals in order, not by default."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended by itself
        return True
    blocked = int(text.partition("SigBlk:")[2].split()[0], 16)
    ours = not text.startswith("Name:\tunshare")
    return ours and bool(blocked >> (signal.SIGTERM - 1) & 1)


def stopped(
    command: Command,
    number: signal.Signals = signal.SIGTERM,
    pid: int = 0,
) -> int:
    """Ask it to end, which must not take long; return its exit code."""
    pid = pid or command.pid
    wait_for(f"{command.name} to hear signals", lambda: hears(pid), SOON)
    begun = time.monotonic()
    with suppress(ProcessLookupError):  # it had what it wanted
        os.kill(pid, number)
    code = command.wait(SOON)
    assert time.monotonic() - begun < STOPPED, command
    return code


def stored(run: Commands, kind: str = "lease") -> dict[str, dict[str, Any]]:
    """Return the label's records by service id, oldest first."""
    with closing(open_store(run.store, Bounds(), {})) as store:
        records = store.list(f"{run.label.lower()}/{kind}/").records
    return {
        record.key.rpartition("/")[2]: json.loads(record.value) for record in records
    }


def states(run: Commands, kind: str = "lease") -> dict[str, str]:
    return {name: record["state"] for name, record in stored(run, kind).items()}


# The name server is dead


class NameServer:
    """Says that every name is 127.0.0.1; or while it is dead, nothing."""

    def __init__(self) -> None:
        self.dead = True
        self.cli: tuple[str, ...] = ()
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self.address = ""
        while not self.address:
            try:
                self._socket.bind((f"127.53.{random.randrange(256)}.53", 53))
                self.address = self._socket.getsockname()[0]
            except OSError as error:  # somebody may have that one
                if error.errno != errno.EADDRINUSE:
                    raise
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"", (self.address, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            question = query[12 : query.index(b"\0", 12) + 5]
            found = question[-4:] == b"\0\x01\0\x01"  # of type A, for IPv4
            head = b"\x81\x80\0\1\0" + bytes([found]) + b"\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" * found
            if not self.dead:
                self._socket.sendto(query[:2] + head + question + record, client)


@pytest.fixture(scope="module")
def only_name_server(root: None) -> Iterator[NameServer]:
    with closing(NameServer()) as server:
        yield server


@pytest.fixture
def names(only_name_server: NameServer, tmp_path: Path) -> NameServer:
    """Give a dead name server, which commands by way of its `cli` ask alone."""
    only_name_server.dead = True
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {only_name_server.address}\n")
    script = f"mount --bind {shlex.quote(str(conf))} /etc/resolv.conf"
    only_name_server.cli = mounting(script)
    return only_name_server


@pytest.mark.promise(8)
def test_a_dead_name_server(
    names: NameServer, run: Commands, serve: Serve, chance: random.Random
) -> None:
    """It would stop every start, hang commands, or pass for "nobody is up"."""
    url = f"--monitor-url={serve(GOOD).url}"
    both = run.store.replace("//", f"//{DEAD_NAME},")
    with Commands(both, run.label, names.cli) as some:
        watch = some("watch", "--service-id=es-1", url)
        hosts = some("hosts")
        lease = some("acquire-lease", "--service-id=es-2")
        with Commands(f"etcd://{DEAD_NAME}", run.label, names.cli) as none:
            refused = none("hosts")
            impatient = node(none, "acquire-lease", "es-3", "--acquire-timeout=1s")
            lasting = [
                node(none, "acquire-lease", "es-4"),
                none("acquire-lease", "--service-id=es-5"),  # asks for its address
                none("watch", "--service-id=es-6", url),
                none("hosts", "--wait"),
            ]
            time.sleep(0.5 + chance.uniform(0, 1.5))
            assert [stopped(command) for command in lasting] == [143, 143, 0, 143]
            assert "not acquired within 1 s" in failed(impatient, 1)
            assert f"{DEAD_NAME}:2379: no answer in time" in failed(refused, 69)
        for command in hosts, lease:
            assert command.wait(SOON) == 0, command
        watch.wait_said("is up", SOON)
        wait_for("es-1 up", lambda: listed(run) == "127.0.0.1", SOON)
        assert stopped(watch) == 0
    assert (states(run), states(run, "hosts")) == ({"es-2": "held"}, {})


def test_a_service_behind_a_dead_name(
    names: NameServer, run: Commands, serve: Serve
) -> None:
    """A node that nobody can find would be listed, or `watch` stand still with it."""
    names.dead, ttl = False, 6
    url = f"http://es-1.example:{serve(GOOD).port}"
    with by_way_of(run, *names.cli) as asking:
        watch = node(
            *(asking, "watch", "es-1", f"--monitor-url={url}", f"--ttl={ttl}s"),
            *("--interval=500ms", "--timeout=500ms"),
        )
        wait_for("es-1 up", lambda: states(run, "hosts") == {"es-1": "up"}, SOON)
        names.dead = True
        fall = wait_for(
            "es-1 down", lambda: states(run, "hosts") == {"es-1": "down"}, SOON
        )
        assert fall < 3 * 2 * (0.5 + 0.5)
        time.sleep(ttl + 0.5)
        reasons = [record["reason"] for record in stored(run, "hosts").values()]
        assert reasons == ["no answer within 0.5 s"]
        names.dead = False
        wait_for("es-1 up", lambda: states(run, "hosts") == {"es-1": "up"}, SOON)
        names.dead = True
        time.sleep(0.7)
        assert stopped(watch) == 0
        assert states(run, "hosts") == {}


# The service misbehaves


class Service:
    """A service that is "503" until it is told to behave otherwise."""

    def __init__(self, serve: Serve, scheme: str) -> None:
        self._talk = BAD
        self._asked = 0
        self.url = f"{scheme}://127.0.0.1:{serve(self).port}/"

    def __call__(self, connection: socket.socket) -> None:
        self._asked += 1
        self._talk(connection)

    def become(self, talk: Talk) -> None:
        self._talk, self._asked = talk, 0

    def wait_asked(self, times: int) -> None:
        wait_for(f"{times} probes of {self.url}", lambda: self._asked >= times, SOON)


def endless(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def flapping() -> Talk:
    talks = itertools.cycle((GOOD, BAD))
    return lambda connection: next(talks)(connection)


def secured(certificates: Certificates) -> Talk:
    context = certificates.server_context()

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as over_tls:
            GOOD(over_tls)

    return talk


GOOD, BAD = answering(status("200 OK")), answering(status("503 Not Yet"))
HUGE = b"HTTP/1.1 200 OK\r\n" + (b"X-A: " + b"y" * 60_000 + b"\r\n") * 200
MANNERS = {
    "hangs": hanging,
    "drips-header": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
    "drips-body": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "never-ends": endless,
    "huge-headers": answering(HUGE + b"\r\n"),
    "flaps": flapping(),
}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return gzip.compress(b"\0" * (128 * 1024 * 1024))


def most_memory(command: Command) -> int:
    """Return the most MiB that it ever had in use."""
    text = Path(f"/proc/{command.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024


def test_a_service_that_misbehaves_keeps_the_lease(
    run: Commands,
    serve: Serve,
    certificates: Certificates,
    strangers: Certificates,
    bomb: bytes,
    chance: random.Random,
) -> None:
    """The next node would start beside one that is not up, or never start."""
    bad = {**MANNERS, "bad-tls": secured(strangers), "no-tls": GOOD}
    elsewhere = f"302 Found\r\nLocation: {serve(GOOD).url}"
    for name, line in ("bomb", "503 Not Yet"), ("redirects", elsewhere):
        bad[name] = answering(status(line, "Content-Encoding: gzip", body=bomb))
    services = {n: Service(serve, "https" if "tls" in n else "http") for n in bad}
    with closing(open_store(run.store, Bounds(), {})) as store:
        for name in services:
            request = Request(run.label, name, name, slots=len(services))
            acquire(store, request, SOON, Bounds())
    watches = {
        name: node(
            *(run, "watch", name, f"--monitor-url={service.url}", "--rise=2"),
            *("--fall=4", "--interval=1s", "--timeout=1s"),  # one answer may be late
            f"--ca={certificates.ca}",
        )
        for name, service in services.items()
    }
    for name, service in services.items():
        watches[name].wait_said("is down", 2 * SOON)
        service.wait_asked(2)
    idle = {name: most_memory(watch) for name, watch in watches.items()}
    time.sleep(chance.uniform(0, 0.3))
    for name, service in services.items():
        service.become(bad[name])
    for service in services.values():
        service.wait_asked(4)
    grown = {name: most_memory(watch) - idle[name] for name, watch in watches.items()}
    assert max(grown.values()) < 16, grown
    assert states(run) == dict.fromkeys(services, "held")
    assert listed(run) == ""
    for name, service in services.items():
        service.become(secured(certificates) if "tls" in name else GOOD)
    for watch in watches.values():
        watch.wait_said("startup lease released", SOON)
    assert states(run) == {}
    assert set(listed(run).split(",")) == services.keys()
    services["flaps"].become(flapping())
    services["flaps"].wait_asked(3)
    assert "flaps" in listed(run).split(",")
    assert [stopped(watch) for watch in watches.values()] == [0] * len(watches)
    assert states(run, "hosts") == {}


# A hundred


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
        assert observer.wait(lambda: not observer.live, SOON)
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


# SQLite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def sqlite(path: Path, label: str) -> Iterator[Commands]:
    """Start commands on an SQLite file."""
    with Commands(f"sqlite://{path}", label) as run:
        yield run


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be in the middle of a transaction that writes."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=SOON)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


def test_a_file_that_others_lock(sqlite: Commands, path: Path) -> None:
    """A backup, or one stuck process, would fail every start."""
    held(sqlite, "es-1")
    waiter = queued(sqlite, "es-2")
    with locked(path):
        commands = [sqlite("release-lease", "--service-id=es-1"), sqlite("hosts")]
        time.sleep(1)
        assert waiter.code is None, waiter
    for command in *commands, waiter:
        assert command.wait(SOON) == 0, command
    with locked(path):
        hosts = sqlite("hosts")
        impatient = node(sqlite, "acquire-lease", "es-3", "--acquire-timeout=200ms")
        leaving = node(sqlite, "acquire-lease", "es-4")
        patient = node(sqlite, "acquire-lease", "es-5")
        assert "database is locked" in failed(hosts, 69)
        assert "database is locked" in failed(impatient, 1)
        patient.wait_said("database is locked", SOON)
        assert stopped(leaving) == 143
    patient.wait_said("waiting, position", SOON)
    assert states(sqlite) == {"es-2": "held", "es-5": "waiting"}
    release(sqlite, "es-2")
    assert patient.wait(SOON) == 0, patient


def test_a_file_that_is_read_only_here(
    root: None, sqlite: Commands, path: Path
) -> None:
    """A volume mounted wrongly would let a node start without its turn."""
    held(sqlite, "es-1")
    waiter = queued(sqlite, "es-2")
    folder = shlex.quote(str(path.parent))
    script = f"mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}"
    with by_way_of(sqlite, *mounting(script)) as there:
        hosts = there("hosts")
        lease = node(there, "acquire-lease", "es-3", "--acquire-timeout=200ms")
        lasting = node(there, "watch", "es-4", "--monitor-url=http://127.0.0.1:1")
        for command in hosts, lease:
            assert "the store refuses us: " in (said := failed(command, 69))
            assert "readonly" in said
        lasting.wait_said("readonly", SOON)
        assert stopped(lasting) == 0
    assert states(sqlite) == {"es-1": "held", "es-2": "waiting"}
    release(sqlite, "es-1")
    assert waiter.wait(SOON) == 0, waiter


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "all": lambda data, chance: chance.randbytes(len(data)),
    "header": lambda data, chance: chance.randbytes(100) + data[100:],
    "rest": lambda data, chance: data[:4096] + chance.randbytes(len(data) - 4096),
    "cut off": lambda data, chance: data[: chance.randrange(1, len(data) // 2)],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_corrupt(
    sqlite: Commands, path: Path, damage: str, chance: random.Random
) -> None:
    """A node would find no hosts and nobody ahead, and found a second cluster."""
    held(sqlite, "es-1")
    path.write_bytes(DAMAGES[damage](path.read_bytes(), chance))
    hosts = sqlite("hosts")
    lease = node(sqlite, "acquire-lease", "es-2")
    lasting = node(sqlite, "watch", "es-3", "--monitor-url=http://127.0.0.1:1")
    for command in hosts, lease:
        assert path.name in failed(command, 69)
    lasting.wait_said("the store refuses us", SOON)
    assert stopped(lasting) == 0


def test_a_file_that_is_deleted_during_a_wait(
    sqlite: Commands, path: Path, chance: random.Random
) -> None:
    """Some would queue in the old file and some in the new one, and start together."""
    held(sqlite, "es-1")
    waiters = {name: queued(sqlite, name) for name in ("es-2", "es-3")}
    time.sleep(chance.uniform(0, 0.2))
    for file in path, *chance.choice([(), [*path.parent.glob("store.db-*")]]):
        file.unlink()
    waiters["es-4"] = node(sqlite, "acquire-lease", "es-4")
    for name in "es-2", "es-3":
        waiters[name].wait_said("the file was replaced", SOON)
    wait_for("the new queue", lambda: len(states(sqlite)) == 3, SOON)
    for _ in range(3):
        (name, *others) = states(sqlite)
        assert waiters[name].wait(SOON) == 0, waiters[name]
        assert [waiters[name].code for name in others] == [None] * len(others)
        assert list(states(sqlite).values()) == ["held", *["waiting"] * len(others)]
        release(sqlite, name)
    assert states(sqlite) == {}


@pytest.fixture
def small(root: None, tmp_path: Path) -> Iterator[Path]:
    """Give a disk of one MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    with ExitStack() as stack:
        with uninterrupted():
            subprocess.run(mount, check=True)
            umount = ("umount", "--lazy", str(disk))
            stack.callback(subprocess.run, umount, check=True)
        yield disk


def test_a_full_disk(small: Path, label: str, chance: random.Random) -> None:
    """A log that fills the disk would end every start, or hand a turn out twice."""
    file, log, lease = small / "store.db", small / "log", 10
    with (
        Commands(f"sqlite://{file}", label) as run,
        closing(sqlite3.connect(file, isolation_level=None)) as reader,
    ):
        held(run, "es-0", f"--label={label}-other")
        held(run, "es-1", f"--lease-timeout={lease}s")
        waiter = queued(run, "es-2")
        reader.execute("SELECT * FROM records").fetchall()
        time.sleep(chance.uniform(0, 0.5))
        # As long as there is a reader, nobody makes room by ending the write-ahead log.
        with log.open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(bytes(4096))
        late = node(run, "acquire-lease", "es-3")
        given = run("release-lease", "--service-id=es-0", f"--label={label}-other")
        assert "disk is full" in failed(given, 69)
        for command in late, waiter:
            command.wait_said("disk is full", SOON)
        time.sleep(chance.uniform(0, 0.5))
        assert (waiter.code, late.code) == (None, None)
        log.unlink()
        assert waiter.wait(lease + SOON) == 0, waiter  # nobody could delete es-1's
        late.wait_said("waiting, position", SOON)
        assert states(run) == {"es-2": "held", "es-3": "waiting"}
        release(run, "es-2")
        assert late.wait(SOON) == 0, late


# Clocks


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
            queue[-1].wait_said("position" if number > 1 else "has the lease", SOON)
            told = datetime.fromisoformat(queue[-1].stderr[:19])
            apart = told - datetime.now() - timedelta(seconds=clock)
            assert abs(apart) < timedelta(minutes=5)
    released = time.monotonic()
    for on in run, sqlite:
        assert [*states(on)] == ["es-1", "es-2", "es-3"]
        release(on, "es-1")
    for _, second, _ in nodes:
        assert second.wait(SOON) == 0, second  # and then it dies
    for _, second, third in nodes:
        assert third.wait(LEASE + SOON) == 0, third
        assert second.ended
        assert third.ended
        assert third.ended - released > LEASE
        assert third.ended - second.ended < LEASE + SOON, third


# PID 1


PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *CLI)


def stopped_inside(
    command: Command, number: signal.Signals, delay: float
) -> tuple[int, float]:
    """Stop what runs as PID 1 below `command`; return its exit code and how long."""
    parent, found = psutil.Process(command.pid), list[psutil.Process]()

    def begun_or_ended() -> bool:
        found[:] = parent.children()
        return bool(found) or command.code is not None

    wait_for("PID 1", begun_or_ended, SOON)
    if not found:  # it had what it wanted before we looked
        return command.wait(), 0
    (inside,) = found
    wait_for("PID 1 to hear signals", lambda: hears(inside.pid), SOON)
    time.sleep(delay)
    begun = time.monotonic()
    code = stopped(command, number, inside.pid)
    assert not inside.is_running()
    return code, time.monotonic() - begun


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGWINCH),
    ],
)
def test_pid_1_is_stopped_at_any_moment(
    root: None,
    run: Commands,
    serve: Serve,
    chance: random.Random,
    number: signal.Signals,
) -> None:
    """A stopped container would take 10 s to die, and its ticket stay behind."""
    held(run, "es-0")
    with (
        by_way_of(run, *PID_1) as inside,
        Commands(run.store, f"{run.label}-free", PID_1) as run_free,
    ):
        url = f"--monitor-url={serve(GOOD).url}"
        commands = [
            node(inside, "acquire-lease", "es-1"),
            node(inside, "watch", "es-2", url),
            inside("hosts", "--wait=9"),
            node(run_free, "acquire-lease", "es-1"),
        ]
        moments = [chance.uniform(0, 1) for _ in commands]
        with ThreadPoolExecutor(len(commands)) as pool:
            numbers = [number] * len(commands)
            ended = list(pool.map(stopped_inside, commands, numbers, moments))
        queued, watch, hosts, free = (code for code, _ in ended)
        left = 128 + number
        assert (queued, hosts) == (left, left), commands
        # On a machine too slow to import all in time it ends as if it had not begun.
        assert watch == 0 or (watch, commands[1].stderr) == (left, ""), commands[1]
        assert free in (0, left), commands[3]
        # Nor is there then time for the store, and the records lapse.
        slow = any(seconds > STOP_GRACE for _, seconds in ended)
        patience = WAITER_TTL + SOON if slow else 0
        granted = {} if free else {"es-1": "held"}
        wait_for("its end", lambda: states(run_free) == granted, patience)
        wait_for("their end", lambda: states(run) == {"es-0": "held"}, patience)
        wait_for("the watch's end", lambda: not states(run, "hosts"), patience)


def test_pid_1_collects_orphans_at_all_times(
    root: None, run: Commands, serve: Serve
) -> None:
    """What health checks and `docker exec` leave would fill the process table."""
    held(run, "es-0")
    with by_way_of(run, *PID_1) as inside:
        url = f"--monitor-url={serve(GOOD).url}"
        commands = [
            node(inside, "acquire-lease", "es-1"),
            node(inside, "watch", "es-2", url),
            node(inside, "run", "es-3", url, "--", "sleep", "60"),
            inside("hosts", "--wait=9"),
        ]
        for command in commands:
            leave_orphans(command)
            assert command.code is None, command


def leave_orphans(command: Command) -> None:
    """Leave PID 1 below a command some orphans, and wait until it has none left."""
    parent = psutil.Process(command.pid)
    wait_for("PID 1", parent.children, SOON)
    (first,) = parent.children()
    wait_for("its start", lambda: hears(first.pid), SOON)
    enter = ("nsenter", f"--target={first.pid}", "--pid", "--mount", "sh", "-c")
    for _ in range(5):
        subprocess.run([*enter, "(sleep 0.5 &)"], check=True)
    wait_for("the orphans", first.children, SOON)
    wait_for("their end", lambda: not first.children(), SOON)

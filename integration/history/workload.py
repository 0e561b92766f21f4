"""Nodes that live and die at random: the real commands, a fake service, and faults.

A node's lives are drawn from the seed, before anything happens: what it does, what
befalls it, and after how long. The seed does not fix how the processes interleave.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from integration.history.checker import Rules
from integration.history.launcher import Command, Launcher
from integration.history.observer import Observer, observe
from integration.history.recorder import Recorder
from integration.history.store_faults import CALL_HANGS, FaultSource
from service_monitor.timing import now

HANG = 60.0  # seconds after which a command counts as hung, its queue apart
EXPECTED = {0, 1, 69, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
STALL = 0.35  # seconds that a sleep of STALL_LOOK may take at most
STALL_LOOK = 0.05
PAUSES = (0.7, 1.1, 2.0)  # of the ttl that the pause is about
LULLS = (1.0, 4.0, 15.0, 30.0)  # seconds between faults of the store, half to all of it
BOUTS = (0.5, 2.0, 6.0)  # seconds that one lasts, and what its mending takes
STOPS = (
    *("create:before", "create:after", "list:after", "update:before"),
    *("update:held", "update:after"),
)
IN_A_TRANSACTION = "_live:after"  # of SQLite: nobody else can write then


@dataclass(frozen=True)
class Settings:
    """How a run is set up; seconds. `calm` is the share of lives without a fault."""

    store: str
    labels: int = 1
    nodes: int = 6
    slots: int = 1
    seed: int = 0
    calm: float = 0.7
    waiter_ttl: float = 3.0
    lease_timeouts: tuple[int, ...] = (2, 3)
    host_ttl: float = 4.0
    probe_timeout: float = 2.0
    boot: tuple[float, float] = (0.0, 0.15)
    up: tuple[float, float] = (0.0, 0.3)
    bug: str | None = None
    fates: tuple[str, ...] = ()  # only these, if any
    stops: tuple[str, ...] = STOPS
    observed: str = ""  # the URL past the proxies, if there are any

    def rules(self) -> Rules:
        rules = Rules(
            slots=self.slots, waiter_ttl=self.waiter_ttl, host_ttl=self.host_ttl
        )
        if self.store.startswith("dynamodb"):
            # docs/timing.md: its clock shows seconds, and who is behind looks seldom.
            return replace(rules, takeover=3.0, wakeup=3.0)
        return rules

    @property
    def patience(self) -> float:
        """Return the seconds after which a command counts as hung."""
        return HANG + self.nodes * max(self.lease_timeouts)


# What may befall a node, and how often relative to the others.
FATES: Mapping[str, float] = {
    "kill-waiter": 2,
    "term-waiter": 3,
    "int-waiter": 1,
    "pause-waiter": 2,
    "stop-waiter": 3,
    "die-booting": 1,
    "crash-loop": 2,
    "release-by-hand": 2,
    "pause-watch": 2,
    "stop-watch": 2,
    "kill-watch": 2,
    "term-watch": 1,
    "int-watch": 1,
    "slow-probe": 2,
    "slow-boot": 1,
}


@dataclass(frozen=True)
class Life:
    """What a node does from one start to the next, and what befalls it."""

    rest: float
    boot: float
    up: float
    lease_timeout: int
    fate: str
    delay: float  # until the fault strikes
    lasting: float  # how long a pause lasts
    ttls: float  # and that in units of the ttl it is about, roughly
    where: str  # at which store call the process stops itself
    away: float  # after a death
    keeps_watch: bool


def lives(settings: Settings, label: int, node: int) -> Iterator[Life]:
    """Draw a node's lives; the same for the same seed."""
    chance = random.Random(f"{settings.seed}/{label}/{node}")
    fates = {f: w for f, w in FATES.items() if f in (settings.fates or FATES)}
    while True:
        fate = ""
        if chance.random() >= settings.calm:
            (fate,) = chance.choices(list(fates), list(fates.values()))
        lease_timeout = chance.choice(settings.lease_timeouts)
        ttl = settings.waiter_ttl
        if fate in ("pause-watch", "stop-watch"):
            ttl = lease_timeout
        ttls = chance.choice(PAUSES)
        yield Life(
            rest=chance.uniform(0, 0.1),
            boot=chance.uniform(*settings.boot),
            up=chance.uniform(*settings.up),
            lease_timeout=lease_timeout,
            fate=fate,
            delay=chance.choice((0.0, 0.02, 0.1, 0.4)) * chance.random(),
            lasting=ttl * ttls * chance.uniform(0.95, 1.05),
            ttls=ttls,
            where=chance.choice(settings.stops),
            away=chance.choice((0.0, 2.0)) * max(lease_timeout, settings.waiter_ttl),
            keeps_watch=chance.random() < 0.5,
        )


def turned(url: str, by: int) -> str:
    """Let a store's URL begin with another one of its hosts."""
    scheme, _, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    names = hosts.split(",")
    by %= len(names)
    return f"{scheme}://{','.join(names[by:] + names[:by])}{slash}{path}"


def strikes(seed: int, kinds: Sequence[str]) -> Iterator[tuple[float, str, float]]:
    """Draw the faults of a store: seconds before it, its kind, and how long it lasts.

    Each kind comes as often as any other.
    """
    chance = random.Random(f"{seed}/store")
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            lull = chance.choice(LULLS) * chance.uniform(0.5, 1)
            yield lull, kind, chance.choice(BOUTS)


class Services:
    """The fake services of all nodes: each answers 200 or 503, perhaps late."""

    def __init__(self, record: Recorder) -> None:
        self.healthy: set[str] = set()
        self.late: dict[str, float] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                began, path = now(), handler.path.strip("/")
                if late := self.late.get(path, 0.0):
                    time.sleep(late)
                ok = path in self.healthy
                if ok:
                    label, _, node = path.partition("/")
                    record("probe", label, node, began=began)
                handler.send_response(200 if ok else 503)
                handler.end_headers()

            def log_message(handler, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                pass  # a probe was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Node:
    """One machine: a thread that lives the lives drawn for it."""

    def __init__(self, rig: Rig, label: int, number: int) -> None:
        self.rig = rig
        self.label = f"l{label}"
        self.name = f"n{number}"
        self.number = number
        self.path = f"{self.label}/{self.name}"
        self.watch: Command | None = None
        self._lives = lives(rig.settings, label, number)
        self.thread = threading.Thread(target=self._run, name=self.path, daemon=True)

    def _run(self) -> None:
        for life in self._lives:
            if self.rig.over.is_set():
                return
            try:
                self._live(life)
            except Exception as error:
                self.rig.record("error", self.label, self.name, what=repr(error))
                if not self.rig.over.is_set():
                    raise

    def _live(self, life: Life) -> None:
        rig = self.rig
        rig.over.wait(life.rest)
        grant = self._acquire(life)
        if life.fate == "kill-waiter":
            rig.over.wait(life.away)
        if grant is None or rig.over.is_set():
            return
        self._hosts(grant)
        if life.fate == "crash-loop":
            self._acquire(life)
        if life.fate == "kill-watch":
            self._end_watch(signal.SIGKILL)
        self._watch(life)
        what, _, whom = life.fate.partition("-")
        if whom == "watch" and what in ("term", "int"):
            rig.over.wait(life.delay)
            self._end_watch(signal.Signals[f"SIG{what.upper()}"], orderly=False)
            self._watch(life)
        if life.fate == "slow-probe":
            rig.services.late[self.path] = rig.settings.probe_timeout * 0.9
        rig.over.wait(
            life.lease_timeout * 1.2 if life.fate == "slow-boot" else life.boot
        )
        if life.fate == "die-booting":
            self._end_watch(signal.SIGKILL, of="a holder")
            rig.over.wait(life.away)
            return
        if life.fate == "release-by-hand":
            self._release(grant)
        elif life.fate == "pause-watch" and self.watch:
            self._pause(self.watch, life)
        self._healthy(True)
        self._await_release(grant, life)
        rig.services.late.pop(self.path, None)
        rig.over.wait(life.up)
        self._healthy(False)
        if not life.keeps_watch:
            self._end_watch(signal.SIGTERM)

    def _start(
        self, kind: str, argv: Sequence[str], where: str | None = None, **data: Any
    ) -> Command:
        rig = self.rig
        run = rig.record.number()

        def stopped() -> None:
            """The process has stopped itself: let it go on later."""
            if where:
                told: dict[str, Any] = {"run": run, "label": self.label}
                told |= {"node": self.name, "ttls": data["ttls"]}
                number = rig.record.fault("pause", "process", where=where, **told)
                rig.pausing(number)
                rig.later(data["lasting"], lambda: rig.go_on(command, number))

        rig.record(kind, self.label, self.name, run, **data)
        # Else all would meet one member first, and nobody the faults of the others.
        store = turned(rig.settings.store, self.number)
        options = ("--store", store, "--label", self.label)
        command = rig.launcher.start([*argv, *options], run, where, stopped)
        rig.running.add(command)
        return command

    def _finish(self, kind: str, command: Command, **data: Any) -> None:
        if not command.wait(self.rig.settings.patience):
            self.rig.record("error", self.label, self.name, command.run, what="hangs")
            command.send(signal.SIGKILL)
            command.wait()
        self.rig.running.discard(command)
        if command.code not in EXPECTED:
            tail = command.stderr.strip().splitlines()[-3:]
            what = f"exit code {command.code}: {' '.join(tail)}"
            self.rig.record("error", self.label, self.name, command.run, what=what)
        self.rig.record(
            kind,
            self.label,
            self.name,
            command.run,
            at=command.ended_at,
            code=command.code,
            **command.told,
            **data,
        )

    def _acquire(self, life: Life) -> int | None:
        """Run acquire-lease under what befalls it; give the token if it succeeds."""
        settings = self.rig.settings
        command = self._start(
            "enqueue",
            [
                *("acquire-lease", "--print-token", "--service-id", self.name),
                *("--host", f"{self.name}.example", "--slots", str(settings.slots)),
                *("--lease-timeout", f"{life.lease_timeout}s"),
            ],
            life.where if life.fate == "stop-waiter" else None,
            lease_timeout=life.lease_timeout,
            lasting=life.lasting,
            ttls=life.ttls,
        )
        what, _, whom = life.fate.partition("-")
        if whom == "waiter" and what != "stop" and not command.wait(life.delay):
            if what == "pause":
                self._pause(command, life)
            else:
                self._signal(command, what)
        self._finish_acquire(command)
        return int(command.stdout) if command.code == 0 else None

    def _finish_acquire(self, command: Command) -> None:
        command.wait(self.rig.settings.patience)
        token = command.stdout.strip()
        told = {"token": int(token)} if token.isdecimal() else {}
        self._finish("acquire", command, **told)

    def _hosts(self, grant: int) -> None:
        command = self._start("hosts-begin", ["hosts"], grant=grant)
        command.wait(HANG)
        listed = [host for host in command.stdout.strip().split(",") if host]
        names = [host.removesuffix(".example") for host in listed]
        self._finish("hosts", command, hosts=listed, grant=grant, names=len(names))

    def _watch(self, life: Life) -> None:
        """Start `watch`, unless there is one left over."""
        if self.watch and not self.watch.ended.is_set():
            return
        self._end_watch(signal.SIGTERM)
        settings = self.rig.settings
        address = f"http://127.0.0.1:{self.rig.services.port}/{self.path}"
        self.watch = self._start(
            "watch-begin",
            [
                *("watch", "--service-id", self.name, "--monitor-url", address),
                *("--host", f"{self.name}.example"),
                *("--interval", f"{settings.probe_timeout}s"),
                *("--timeout", f"{settings.probe_timeout}s"),
                *("--ttl", f"{settings.host_ttl}s"),
            ],
            "delete:before" if life.fate == "stop-watch" else None,
            lasting=life.lasting,
            ttls=life.ttls,
        )

    def _end_watch(self, number: signal.Signals, **more: Any) -> None:
        watch, self.watch = self.watch, None
        if watch:
            what = number.name.removeprefix("SIG").lower()
            self._signal(watch, what, **{"orderly": what == "term", **more})
            if what != "kill":  # if it is stopped it would never see it
                watch.send(signal.SIGCONT)
            self._finish("watch-end", watch)

    def _release(self, grant: int) -> None:
        argv = ["release-lease", "--service-id", self.name, "--token", str(grant)]
        command = self._start("release-begin", argv, token=grant)
        self._finish("release", command, token=grant)

    def _await_release(self, grant: int, life: Life) -> None:
        observer, place = self.rig.observer, (self.label, self.name)

        def gone() -> bool:
            ticket = observer.ticket(*place)
            return ticket is None or ticket.version != grant or self.rig.over.is_set()

        kind = "lost" if gone() and life.fate != "release-by-hand" else "release-seen"
        observer.wait(gone, life.lease_timeout + CALL_HANGS + 2)
        self.rig.record(kind, self.label, self.name, token=grant)

    def _healthy(self, up: bool) -> None:
        services = self.rig.services
        if up:
            self.rig.record("healthy", self.label, self.name)
            services.healthy.add(self.path)
        else:
            services.healthy.discard(self.path)
            self.rig.record("unhealthy", self.label, self.name)

    def _signal(self, command: Command, what: str, **more: Any) -> None:
        if command.ended.is_set():
            return
        told = {"run": command.run, "label": self.label, "node": self.name, **more}
        number = self.rig.record.fault(what, "process", **told)
        struck = command.send(signal.Signals[f"SIG{what.upper()}"])
        self.rig.record.mended(number, struck=struck)

    def _pause(self, command: Command, life: Life) -> None:
        told: dict[str, Any] = {"run": command.run, "label": self.label}
        told |= {"node": self.name, "ttls": life.ttls}
        number = self.rig.record.fault("pause", "process", **told)
        self.rig.pausing(number)
        struck = command.send(signal.SIGSTOP)
        if struck:
            self.rig.over.wait(life.lasting)
        self.rig.go_on(command, number, struck=struck)

    def end(self) -> None:
        """End what is left of the node."""
        self._end_watch(signal.SIGTERM)


@dataclass
class Rig:
    """Everything of one run; `record` and `observer` can be read after it too."""

    settings: Settings
    directory: Path | None = None
    faults: FaultSource | None = None
    nodes: list[Node] = field(default_factory=list)

    def __enter__(self) -> Self:
        settings, self.over = self.settings, threading.Event()
        self.running: set[Command] = set()
        self.paused: set[int] = set()
        self.pauses = 0  # so far
        self._timers: list[threading.Timer] = []
        with ExitStack() as stack:
            path = self.directory and self.directory / "events.jsonl"
            self.record = Recorder(path or None)
            stack.callback(self.record.close)
            self.launcher = stack.enter_context(
                Launcher(settings.waiter_ttl, settings.bug)
            )
            self.services = Services(self.record)
            stack.callback(self.services.close)
            # Makes the tables of a new SQLite file, and tells of a store of no use.
            run = self.launcher.start(["status", "--store", settings.store], 0)
            run.wait()
            if run.code:
                raise RuntimeError(run.stderr)
            self.observer: Observer = stack.enter_context(
                observe(settings.observed or settings.store)
            )
            self._stack = stack.pop_all()
        self._thread(self._notice_stalls)
        if settings.store.startswith("sqlite"):
            self._thread(self._notice_locks)
        return self

    def start(self) -> None:
        """Let all nodes live."""
        settings = self.settings
        for label in range(settings.labels):
            for number in range(settings.nodes):
                self.nodes.append(Node(self, label, number))
        for node in self.nodes:
            node.thread.start()
        if self.faults:
            self._thread(self._strike, keep=True)

    def run(
        self,
        seconds: float,
        enough: Callable[[], bool] = lambda: False,
        *,
        drain: bool = True,
    ) -> None:
        """Let the nodes live for so long, or until it is enough; then end them.

        With `drain` wait until the store is empty, which it should be soon.
        """
        self.start()
        deadline = now() + seconds
        while now() < deadline and not enough():
            self.over.wait(0.5)
        self.finish(drain)

    def finish(self, drain: bool = True) -> None:
        """End every node in order, and see whether anything of them stays."""
        self.over.set()
        with self.observer.changed:
            self.observer.changed.notify_all()
        for timer in list(self._timers):
            timer.join()
        told: set[Command] = set()
        for node in self.nodes:
            while node.thread.is_alive():
                watches = {other.watch for other in self.nodes}
                for command in self.running - watches - told:
                    told.add(command)
                    more = {"run": command.run, "orderly": True}
                    number = self.record.fault("term", "process", **more)
                    command.send(signal.SIGTERM)
                    self.record.mended(number)
                node.thread.join(0.5)
        for node in self.nodes:
            node.end()
        settings = self.settings
        longest = max(settings.waiter_ttl, settings.host_ttl, *settings.lease_timeouts)
        patience = 2 * longest + CALL_HANGS + 2 if drain else 1
        self.observer.wait(lambda: not self.observer.live, patience)
        if self.observer.failed:
            self.record("error", what=f"the observer: {self.observer.failed}")
        self.record("end")

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for timer in self._timers:  # no fault may outlive what it befalls
            timer.join()
        self._stack.close()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after so many seconds, or when all is over."""

        def wait() -> None:
            self.over.wait(seconds)
            act()

        self._thread(wait, keep=True)

    def pausing(self, number: int) -> None:
        self.paused.add(number)
        self.pauses += 1

    def go_on(self, command: Command, number: int, *, struck: bool = True) -> None:
        command.send(signal.SIGCONT)
        self.record.mended(number, struck=struck)
        self.paused.discard(number)

    def _thread(self, work: Callable[[], None], *, keep: bool = False) -> None:
        thread: Any = threading.Thread(target=work, daemon=True)
        thread.start()
        if keep:
            self._timers.append(thread)

    def _notice_stalls(self) -> None:
        """Declare when this machine was too busy to let anybody run."""
        while not self.over.is_set():
            began = now()
            time.sleep(STALL_LOOK)
            if now() - began > STALL:
                number = self.record.number()
                told: dict[str, Any] = {"what": "stall", "target": "machine"}
                told["noticed"] = True
                self.record("fault", at=began, id=number, **told)
                self.record.mended(number)

    def _notice_locks(self) -> None:
        """Declare when nobody could write: SQLite's one writer was paused writing.

        That is an outage of the store as docs/timing.md has it, but only a pause of
        ours excuses it: a command that keeps the lock by itself is to be found out.
        """
        path = unquote(self.settings.store.removeprefix("sqlite://"))
        with closing(sqlite3.connect(path, timeout=HANG, isolation_level=None)) as db:
            while not self.over.wait(STALL_LOOK):
                began, paused, pauses = now(), set(self.paused), self.pauses
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
                if now() - began > STALL and (paused or self.pauses > pauses):
                    number = self.record.number()
                    told: dict[str, Any] = {"what": "locked", "target": "store"}
                    told["noticed"] = True
                    self.record("fault", at=began - STALL_LOOK, id=number, **told)
                    self.record.mended(number)

    def _strike(self) -> None:
        """Let the store fail in every way in turn, as the seed has it."""
        assert self.faults
        seed, faults = self.settings.seed, self.faults
        for n, (lull, kind, bout) in enumerate(strikes(seed, faults.kinds())):
            if self.over.wait(lull):
                return
            recovery, struck = faults.recovery(kind), False
            number = self.record.fault(kind, "store", recovery=recovery)
            try:
                chance = random.Random(f"{seed}/store/{n}")
                mend = faults.inject(kind, chance, self.observer)
                self.over.wait(bout)
                struck = mend()
            except Exception as error:  # of the harness: the run is no good then
                self.record("error", what=f"{kind}: {error!r}")
                faults.heal()
            finally:
                self.record.mended(number, struck=struck)

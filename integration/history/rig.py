"""One run: nodes that live and die at random, a store that fails, and its observer."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from integration.history.dynamodb_observer import DynamoObserver
from integration.history.etcd_observer import Etcd2Observer, Etcd3Observer
from integration.history.launcher import Command, Launcher
from integration.history.lives import HANG, Settings, strikes
from integration.history.node import Node
from integration.history.observer import Observer
from integration.history.recorder import Recorder
from integration.history.services import Services
from integration.history.sqlite_observer import SqliteObserver
from integration.history.store_faults import CALL_HANGS, FaultSource
from service_monitor.timing import now

STALL = 0.35  # seconds that a sleep of STALL_LOOK may take at most
STALL_LOOK = 0.05


def observe(url: str) -> Observer:
    """Return the observer for a store's URL."""
    if url.startswith("dynamodb"):
        return DynamoObserver(url)
    if url.startswith("sqlite"):
        return SqliteObserver(url)
    if url.startswith("etcd2"):
        return Etcd2Observer(url)
    return Etcd3Observer(url)


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

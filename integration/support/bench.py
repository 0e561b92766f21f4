"""A watcher on a store file, and a service that answers as told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.support.commands import HANG
from service_monitor.net.calls import Bounds
from service_monitor.node.probe import Result
from service_monitor.node.pulse import Pulse
from service_monitor.node.startup_lease import AnyOfOurs
from service_monitor.node.watcher import Rhythm, Watched, Watcher
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.lease import Lease, Request
from service_monitor.recipes.publisher import Service
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.stores.sqlite.store import SqliteStore

OK, BAD = Result(True, "200 OK"), Result(False, "connection refused")


class Bench:
    """A watcher on a store file, a service that answers as told, and a log of calls."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.bounds = Bounds()
        self.store: Any = SqliteStore(self.path, self.bounds)
        self.others = SqliteStore(self.path, Bounds())
        self.answers: list[Result] = []
        self.answer = BAD
        self.on_probe: Callable[[], object] = lambda: None
        self.thread: threading.Thread | None = None
        self.watcher: Watcher

    def probe(self) -> Result:
        self.on_probe()
        return self.answers.pop(0) if self.answers else self.answer

    def build(
        self, ttl: float = 15.0, timings: Timings = TIMINGS, **rhythm: Any
    ) -> Watcher:
        service = Service("es", "a", "host-a", ttl)
        settings = {"interval": 0.05, **rhythm}
        watched = Watched(service, self.probe, Rhythm(**settings))
        self.watcher = Watcher(
            self.store, watched, AnyOfOurs(), Pulse(ttl), self.bounds, timings
        )
        return self.watcher

    def start(self, timings: Timings = TIMINGS, **settings: Any) -> None:
        self.thread = threading.Thread(
            target=self.build(timings=timings, **settings).run
        )
        self.thread.start()

    def end(self) -> None:
        self.bounds.stop.request(15)
        if self.thread:
            self.thread.join(HANG)
            assert not self.thread.is_alive()
        self.store.close()
        self.others.close()

    def acquire(self, name: str = "a", timeout: float = 60.0) -> Lease:
        contender = Contender(self.others, Request("es", name, "h", timeout))
        lease = contender.step()
        assert isinstance(lease, Lease)
        return lease

    @property
    def hosts(self) -> list[str]:
        return up_hosts(self.others.list("es/hosts/").records)

    @property
    def holders(self) -> list[str]:
        return [r.key for r in self.others.list("es/lease/").records]

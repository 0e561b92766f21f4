"""What can befall a store while a workload runs; `rig.Rig` draws from it.

Each kind begins by a verb that takes effect before it returns and gives what mends it,
which returns when the store serves again, and whether the fault struck anybody.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol
from urllib.parse import unquote

from integration.faults.etcd_cluster import EtcdCluster
from integration.faults.proxy import Proxy
from integration.history.etcd_observer import Etcd3Observer
from integration.history.observer import Observer
from integration.support.dynamodb import FAULTS, DynamoDB

Mend = Callable[[], bool]
LATENCY = (1.0, 4.5)  # seconds; a call may take 5
COMPACT_EVERY = 0.2  # seconds
CALL_HANGS = 7.0  # docs/timing.md: seconds of a call that hangs, and of back-off
_RECOVERY = {  # where no call hangs there is only the back-off
    "connections reset": 3.0,
    "connections refused": 3.0,
    "compaction": None,
}


class FaultSource(Protocol):
    """Faults of the store: `inject` begins one and gives what mends it.

    Each is declared to the checker while it lasts and `recovery` seconds more, None if
    it excuses nothing. `heal` mends everything.
    """

    def kinds(self) -> Sequence[str]: ...

    def recovery(self, kind: str) -> float | None: ...

    def heal(self) -> None: ...

    def inject(self, kind: str, chance: random.Random, observer: Observer) -> Mend: ...


class ClusterFaults:
    """Faults of etcd's members and of the connections to them."""

    def __init__(self, cluster: EtcdCluster, *, v2: bool = False) -> None:
        self._cluster = cluster
        self._write = b"PUT /v2/keys" if v2 else b"/v3/kv/txn"
        self._verbs: dict[str, Callable[[random.Random], Mend]] = {
            "member killed": self._kill,
            "member paused": self._pause,
            "member cut off": self._partition,
            "leader changed": self._move_leader,
            "quorum lost": self._quorum,
            "all restarted": self._restart,
            "latency": self._latency,
            "black hole": lambda chance: self._connections(chance, "black_hole"),
            "connections reset": lambda chance: self._connections(chance, "reset"),
            "connections refused": lambda chance: self._connections(chance, "refuse"),
            "connections half-open": self._silence,
            "replies lost": self._lose_replies,
        }
        if not v2:  # the v2 API has no quota, and forgets by itself
            self._verbs |= {"no space": self._fill, "compaction": self._compact}

    def kinds(self) -> Sequence[str]:
        return list(self._verbs)

    def recovery(self, kind: str) -> float | None:
        return _RECOVERY.get(kind, CALL_HANGS)

    def inject(self, kind: str, chance: random.Random, observer: Observer) -> Mend:
        self._observer = observer
        return self._verbs[kind](chance)

    def heal(self) -> None:
        self._cluster.heal()
        self._cluster.wait_healthy()

    def _member(self, chance: random.Random) -> int:
        """Choose a member, the leader as often as all others together."""
        if chance.random() < 0.5:
            return self._cluster.leader()
        return chance.randrange(self._cluster.size)

    def _heal(self) -> bool:
        self.heal()
        return True

    def _seen(self) -> int:
        """Return the revision that the observer has read: it must not lose the rest."""
        assert isinstance(self._observer, Etcd3Observer)
        return self._observer.revision

    def _kill(self, chance: random.Random) -> Mend:
        self._cluster.kill(self._member(chance))
        return self._heal

    def _pause(self, chance: random.Random) -> Mend:
        self._cluster.pause(self._member(chance))
        return self._heal

    def _partition(self, chance: random.Random) -> Mend:
        self._cluster.partition(self._member(chance))
        return self._heal

    def _move_leader(self, _: random.Random) -> Mend:
        self._cluster.move_leader()
        return self._heal

    def _quorum(self, chance: random.Random) -> Mend:
        verb = chance.choice((self._cluster.kill, self._cluster.pause))
        for i in chance.sample(range(self._cluster.size), self._cluster.size // 2 + 1):
            verb(i)
        return self._heal

    def _restart(self, _: random.Random) -> Mend:
        for i in range(self._cluster.size):
            self._cluster.kill(i)
        return self._heal

    def _fill(self, _: random.Random) -> Mend:
        self._cluster.fill()

        def drain() -> bool:
            filled = self._cluster.revision()
            assert isinstance(self._observer, Etcd3Observer)
            self._observer.wait_revision(filled, CALL_HANGS)
            self._cluster.drain(upto=self._seen())
            return self._heal()

        return drain

    def _compact(self, _: random.Random) -> Mend:
        """Forget the history again and again."""
        over = threading.Event()

        def compact() -> None:
            while not over.wait(COMPACT_EVERY):
                self._cluster.compact(upto=self._seen())

        thread = threading.Thread(target=compact, daemon=True)
        thread.start()

        def end() -> bool:
            over.set()
            thread.join()
            return self._heal()

        return end

    def _latency(self, chance: random.Random) -> Mend:
        seconds = chance.uniform(*LATENCY)
        for i in self._some(chance):
            self._cluster.proxies[i].latency(seconds)
        return self._heal

    def _connections(self, chance: random.Random, verb: str) -> Mend:
        for i in self._some(chance):
            getattr(self._cluster.proxies[i], verb)()
        return self._heal

    def _silence(self, _: random.Random) -> Mend:
        for proxy in self._cluster.proxies:
            proxy.silence()
        return self._heal

    def _lose_replies(self, chance: random.Random) -> Mend:
        hang, proxies = chance.random() < 0.5, self._cluster.proxies
        before = sum(proxy.lost for proxy in proxies)
        for proxy in proxies:
            proxy.lose_replies(chance.randrange(1, 8), self._write, hang=hang)

        def end() -> bool:
            self.heal()
            return sum(proxy.lost for proxy in proxies) > before

        return end

    def _some(self, chance: random.Random) -> Sequence[int]:
        size = self._cluster.size
        return range(size) if chance.random() < 0.3 else [chance.randrange(size)]


class DynamoFaults:
    """What DynamoDB answers in a bad hour, and faults of the connections to it."""

    def __init__(self, server: DynamoDB, proxy: Proxy) -> None:
        self._server = server
        self._proxy = proxy
        self._verbs: dict[str, Callable[[], None]] = {
            "latency": lambda: proxy.latency(1.0),
            "black hole": proxy.black_hole,
            "connections reset": proxy.reset,
            "connections refused": proxy.refuse,
            "connections half-open": proxy.silence,
        }

    def kinds(self) -> Sequence[str]:
        return [*self._verbs, *FAULTS]

    def recovery(self, kind: str) -> float | None:
        return CALL_HANGS

    def heal(self) -> None:
        self._server.control("faults")
        self._proxy.heal()

    def inject(self, kind: str, chance: random.Random, observer: Observer) -> Mend:
        if kind in self._verbs:
            self._verbs[kind]()
        else:
            self._server.control("faults", kind=kind, share=chance.choice((0.3, 0.7)))

        def mend() -> bool:
            self.heal()
            return True

        return mend


class SqliteFaults:
    """Another program has the file's one write lock, and takes its time."""

    def __init__(self, url: str) -> None:
        self._path = unquote(url.removeprefix("sqlite://"))

    def kinds(self) -> Sequence[str]:
        return ["file locked"]

    def recovery(self, kind: str) -> float | None:
        return CALL_HANGS

    def heal(self) -> None:
        """Do nothing: a lock goes with its connection."""

    def inject(self, kind: str, chance: random.Random, observer: Observer) -> Mend:
        db = sqlite3.connect(
            self._path, timeout=60, isolation_level=None, check_same_thread=False
        )
        db.execute("BEGIN IMMEDIATE")

        def mend() -> bool:
            with closing(db):
                db.execute("ROLLBACK")
            return True

        return mend

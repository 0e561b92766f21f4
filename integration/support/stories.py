"""Histories that a test makes up, for the history checker to judge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from integration.history.checker import check
from integration.history.recorder import Change, Event
from integration.history.relations import Rules

LEASE = 10.0
TTL = 3.0
LAG = 0.05  # seconds by which the observer may be behind


@dataclass
class Story:
    """A history in the making; `at` is the present."""

    at: float = 100.0
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    runs: int = 0
    version: int = 0
    created: dict[tuple[str, str], int] = field(default_factory=dict)
    begun: dict[int, tuple[str, str]] = field(default_factory=dict)

    def later(self, seconds: float) -> Story:
        self.at += seconds
        return self

    def event(self, kind: str, node: str = "", run: int = 0, **data: Any) -> None:
        self.events.append(Event(self.at, kind, "es", node, run, data))

    def begin(self, kind: str, node: str, **data: Any) -> int:
        self.runs += 1
        self.event(kind, node, self.runs, **data)
        self.begun[self.runs] = kind, node
        return self.runs

    def end(self, run: int, code: int = 0, **data: Any) -> None:
        begun, node = self.begun[run]
        kinds = {
            "enqueue": "acquire",
            "hosts-begin": "hosts",
            "watch-begin": "watch-end",
            "release-begin": "release",
        }
        self.event(kinds[begun], node, run, code=code, **data)

    def fault(
        self, what: str, seconds: float = 0.0, run: int = 0, target: str = "process"
    ) -> None:
        number = 1000 + len(self.events)
        self.event("fault", "", run, what=what, target=target, id=number)
        mended = Event(self.at + seconds, "mended", data={"id": number})
        self.events.append(mended)

    def put(
        self, node: str, state: str, nonce: str = "", kind: str = "lease", **more: Any
    ) -> int:
        """Let the store take a record in; give its version."""
        self.version += 1
        created = self.created.setdefault((kind, node), self.version)
        value: dict[str, Any] = {"state": state, "nonce": nonce or node, "host": node}
        if kind == "lease":
            value |= {"lease_timeout": LEASE}
        span = self.at - LAG, self.at
        change = Change(*span, "es", kind, node, created, self.version, value)
        self.changes.append(replace(change, **more))
        return self.version

    def gone(self, node: str, kind: str = "lease", expired: bool | None = None) -> None:
        self.version += 1
        created = self.created.pop((kind, node))
        span = self.at - LAG, self.at
        self.changes.append(
            Change(*span, "es", kind, node, created, self.version, None, expired)
        )

    def grant(self, node: str) -> tuple[int, int]:
        """Let a node get the lease at once; give its run and its token."""
        run = self.begin("enqueue", node, lease_timeout=LEASE)
        self.later(0.1).put(node, "waiting")
        token = self.later(0.1).put(node, "held")
        deadline = self.at - 0.1 + LEASE
        told: dict[str, Any] = {
            "decided": self.at,
            "deadline": deadline,
            "nonces": [node],
        }
        self.end(run, token=token, **told)
        return run, token

    def come_up(self, node: str) -> int:
        """Let a node's service come up and its lease be released; give watch's run."""
        run = self.begin("watch-begin", node)
        self.later(0.1).event("probe", node, began=self.at - 0.01)
        self.later(0.1).put(node, "up", f"w{node}", "hosts")
        self.later(0.1).gone(node)
        return run

    def broken(self, rules: Rules | None = None) -> set[str]:
        rules = rules or Rules(waiter_ttl=TTL, host_ttl=TTL)
        return {v.rule for v in check(self.events, self.changes, rules)}


def two_nodes() -> Story:
    """Tell of two nodes that start one after the other, as they should."""
    story = Story()
    story.grant("a")
    story.come_up("a")
    story.later(0.1)
    _, token = story.grant("b")
    run = story.begin("hosts-begin", "b", grant=token)
    story.later(0.1).end(run, hosts=["a"], grant=token)
    story.come_up("b")
    return story

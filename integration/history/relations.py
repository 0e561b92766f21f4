"""A history put in relation: which process did what, which record lived how long.

Events of the workers and the store's own log go in. A change took place between its
`after` and its `at`. Time is excused while a declared fault lasted that had a part in
it: of the store (and for as many seconds more as it says), a pause of the process
concerned, a stall of the machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.history.recorder import Change, Event

INF = float("inf")
BEGIN = {
    "enqueue": "acquire-lease",
    "hosts-begin": "hosts",
    "watch-begin": "watch",
    "release-begin": "release-lease",
}
END = {"acquire", "hosts", "watch-end", "release"}


@dataclass(frozen=True)
class Rules:
    """What was promised in this run; seconds."""

    slots: int = 1
    waiter_ttl: float = 15.0
    host_ttl: float = 15.0
    wakeup: float = 1.0
    takeover: float = 1.5
    recovery: float = 7.0  # where a fault of the store does not say how long
    resume: float = 1.0  # until a process that was paused is itself again


@dataclass(eq=False)
class Process:
    """One command, from before its start until after its end."""

    run: int
    role: str
    label: str
    node: str
    begin: Event
    finish: Event | None = None
    died: float = INF  # when it was sent SIGKILL
    signalled: float = INF  # when it was sent SIGTERM or SIGINT
    pauses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def end(self) -> float:
        return self.finish.at if self.finish else INF

    @property
    def dead(self) -> float:
        return min(self.end, self.died)

    @property
    def code(self) -> int | None:
        code: int | None = self.told("code")
        return code

    def told(self, what: str) -> Any:
        return self.finish.data.get(what) if self.finish else None

    def __str__(self) -> str:
        return f"{self.role} #{self.run} of {self.label}/{self.node}"


@dataclass(eq=False)
class Stay:
    """A record while nothing but its remaining life changed; `gone` if it ended so."""

    index: int
    change: Change
    state: str
    nonce: str
    before: Stay | None = None  # the same record, in an earlier state
    ended: int | None = None
    end: Change | None = None

    @property
    def gone(self) -> bool:
        return self.end is not None and self.end.value is None and not self.lost

    @property
    def lost(self) -> bool:
        """Tell whether its end was missed, so that nothing follows from it."""
        return self.end is not None and self.end.kind == "gap"

    @property
    def lease_timeout(self) -> float:
        return float((self.change.value or {}).get("lease_timeout", INF))

    @property
    def granted(self) -> bool:
        """Tell whether this is a lease newly given, not one renewed."""
        renewed = self.before is not None and self.before.state == "held"
        return self.state == "held" and not renewed and self.change.seen

    def __str__(self) -> str:
        change = self.change
        return f"{change.label}/{change.name} {self.state} version {change.version}"


Queue = Mapping[str, Stay]


class History:
    """The same, put in relation: processes, stays, and when things were excused."""

    def __init__(
        self, events: Iterable[Event], changes: Sequence[Change], rules: Rules
    ) -> None:
        self.events = sorted(events, key=lambda event: event.at)
        self.changes = changes
        self.rules = rules
        self.processes: dict[int, Process] = {}
        self.by_node: dict[tuple[str, str], list[Process]] = defaultdict(list)
        self.owners: dict[str, Process] = {}
        self.store_faults: list[tuple[float, float]] = []
        self.stalls: list[tuple[float, float]] = []
        self.probes: dict[tuple[str, str], list[tuple[float, float]]] = {}
        last = [event.at for event in self.events[-1:]]
        self.over = max(last + [change.at for change in changes[-1:]], default=0.0)
        self._read_events()
        self.stays: list[Stay] = []
        self.by_key: dict[tuple[str, str, str], list[Stay]] = defaultdict(list)
        self.acquisitions: dict[tuple[str, str, object], Stay] = {}
        self._read_changes()

    def of(self, role: str, code: int | None = None) -> list[Process]:
        """List the ended commands of one kind, oldest first."""
        return [
            p
            for p in self.processes.values()
            if p.role == role and p.finish and (code is None or p.code == code)
        ]

    def owner(self, stay: Stay) -> Process | None:
        return self.owners.get(stay.nonce)

    def lease(self, process: Process, token: object) -> Stay | None:
        """Find the acquisition that a process says it made."""
        return self.acquisitions.get((process.label, process.node, token))

    def tickets(self, label: str) -> Iterator[tuple[int, Change, Queue]]:
        """Replay one label's queue; the tickets after each change, by `created`."""
        live: dict[str, Stay] = {}
        stays = iter(s for s in self.stays if s.change.label == label)
        for index, change in enumerate(self.changes):
            if change.kind == "gap":
                live.clear()
            elif change.label != label or change.kind not in ("lease", "hosts"):
                continue
            elif change.kind == "lease" and change.value is None:
                live.pop(change.name, None)
            elif change.value is not None:
                stay = next(stays)
                if change.kind != "lease":
                    continue
                live[change.name] = stay
            else:
                continue
            ordered = sorted(live.items(), key=lambda item: item[1].change.created)
            yield index, change, dict(ordered)

    @property
    def labels(self) -> list[str]:
        return sorted({c.label for c in self.changes if c.label})

    def excused(
        self,
        a: float,
        b: float,
        *processes: Process | None,
        ahead: Sequence[Stay] = (),
    ) -> float:
        """Give the seconds between a and b that a fault may have cost.

        Of these processes, or of the waiters ahead: as long as their tickets are there.
        """
        spans = [
            *self._near(self.store_faults, a, b, 0.0),
            *self._near(self.stalls, a, b, 0.5),
        ]
        for process in processes:
            if process:
                spans += self._near(process.pauses, a, b, self.rules.resume)
        for stay in ahead:
            until = stay.end.at if stay.end else b
            owner = self.owner(stay)
            idle = [*owner.pauses, (owner.dead, INF)] if owner else [(a, INF)]
            idle = [(x, min(y, until)) for x, y in idle]
            spans += self._near(idle, a, b, self.rules.resume)
        total, reached = 0.0, a
        for begin, end in sorted(spans):
            begin, end = max(begin, reached), min(end, b)
            if end > begin:
                total, reached = total + end - begin, end
        return total

    def disturbed(self, a: float, b: float, *processes: Process | None) -> bool:
        return b > a and self.excused(a, b, *processes) > 0

    def last_fault(self, a: float, b: float) -> float:
        """Return when time began to run undisturbed: a, or the last fault's end."""
        spans = self._near(self.store_faults, a, b, 0.0)
        return min(b, max([a, *(end for _, end in spans)]))

    @staticmethod
    def _near(
        spans: Sequence[tuple[float, float]], a: float, b: float, more: float
    ) -> list[tuple[float, float]]:
        return [(x, y + more) for x, y in spans if x < b and y + more > a]

    def _read_events(self) -> None:
        open_faults: dict[int, tuple[Event, float]] = {}
        for event in self.events:
            data = event.data
            if event.kind in BEGIN:
                process = Process(
                    event.run, BEGIN[event.kind], event.label, event.node, event
                )
                self.processes[event.run] = process
                self.by_node[event.label, event.node].append(process)
            elif event.kind in END:
                process = self.processes[event.run]
                process.finish = event
                for nonce in data.get("nonces", ()):
                    self.owners[nonce] = process
            elif event.kind == "probe":
                key = event.label, event.node
                span = float(data["began"]), event.at
                self.probes.setdefault(key, []).append(span)
            elif event.kind == "fault":
                open_faults[data["id"]] = event, event.at
                self._strike(event)
            elif event.kind == "mended":
                fault, since = open_faults.pop(data["id"])
                self._span(fault, since, event.at)
        for fault, since in open_faults.values():
            self._span(fault, since, self.over)

    def _strike(self, event: Event) -> None:
        process = self.processes.get(event.run)
        if process and event.data["what"] == "kill":
            process.died = min(process.died, event.at)
        if process and event.data["what"] in ("term", "int"):
            process.signalled = min(process.signalled, event.at)

    def _span(self, fault: Event, since: float, until: float) -> None:
        process = self.processes.get(fault.run)
        if fault.data["target"] == "store":
            recovery = fault.data.get("recovery", self.rules.recovery)
            if recovery is not None:
                self.store_faults.append((since, until + recovery))
        elif fault.data["target"] == "machine":
            self.stalls.append((since, until))
        elif process and fault.data["what"] == "pause":
            process.pauses.append((since, until))

    def _read_changes(self) -> None:
        live: dict[tuple[str, str, str], Stay] = {}
        for index, change in enumerate(self.changes):
            if change.kind == "gap":
                for stay in live.values():
                    stay.ended, stay.end = index, change
                live.clear()
                continue
            key = change.label, change.kind, change.name
            before = live.pop(key, None)
            if before:
                before.ended, before.end = index, change
            if change.value is not None:
                if before and before.change.created != change.created:
                    before = None
                state = str(change.value.get("state"))
                nonce = str(change.value.get("nonce"))
                live[key] = Stay(index, change, state, nonce, before)
                self.stays.append(live[key])
                self.by_key[key].append(live[key])
                if state == "held" and change.kind == "lease":
                    which = change.label, change.name, change.version
                    self.acquisitions[which] = live[key]

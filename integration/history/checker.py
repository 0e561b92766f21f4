"""Judge a history: events of the workers and the store's own log in, violations out.

No I/O and no clock. Rules about who and in which order rest on the store's order alone.
Rules about time use bounds: a change took place between its `after` and its `at`, so
"too late" means that even the shortest time between two things was too long. Time is
excused while a declared fault lasted that had a part in it: of the store (and for as
many seconds more as it says), a pause of the process concerned, a stall of the machine.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
KILLED, STOP_LIMIT = -9, 2.5  # seconds from SIGTERM to the end, the machine's own apart
TINY = 0.001  # seconds; two readings of one clock


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


@dataclass(frozen=True)
class Violation:
    """A broken promise, at the event or change that shows it."""

    rule: str
    at: float
    text: str
    item: Event | Change | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


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


# --- the rules; each yields what breaks it --------------------------------------------


def exclusion(history: History) -> Iterator[Violation]:
    """Never do more than `slots` service ids of a label hold a live lease."""
    for label in history.labels:
        for _, change, queue in history.tickets(label):
            held = [name for name, stay in queue.items() if stay.state == "held"]
            is_new = change.name in held
            if len(held) > history.rules.slots and is_new:
                text = f"{' and '.join(held)} hold, slots {history.rules.slots}"
                yield Violation("exclusion", change.at, text, change)


def order(history: History) -> Iterator[Violation]:
    """Only whoever has fewer than `slots` live tickets ahead is granted the lease."""
    for label in history.labels:
        for _, change, queue in history.tickets(label):
            stay = queue.get(change.name)
            if not stay or stay.change is not change or not stay.granted:
                continue
            ahead = [
                name
                for name, other in queue.items()
                if other.change.created < change.created
            ]
            if len(ahead) >= history.rules.slots:
                text = f"{change.name} was granted the lease before {', '.join(ahead)}"
                yield Violation("order", change.at, text, change)


def belief(history: History) -> Iterator[Violation]:
    """A holder's own deadline ends no later than its record in the store does.

    So nobody can have been granted the lease while another one still believed in it.
    """
    for process in history.of("acquire-lease", 0):
        decided, deadline = process.told("decided"), process.told("deadline")
        stay = history.lease(process, process.told("token"))
        if decided is None or stay is None:
            continue
        text = ""
        if decided >= deadline:
            text = f"took a lease {decided - deadline:.3f} s after its own deadline"
        elif stay.change.deadline is not None:
            if (late := deadline - stay.change.deadline) > TINY:
                text = f"counts on {late:.3f} s more than the store gives"
        elif (
            # Once it was seen to be gone the next one may have been granted it.
            stay.end
            and (late := deadline - stay.end.at) > TINY
            and stay.gone
            and not any(_releasers(history, stay))
        ):
            text = f"counts on {late:.3f} s more than the store gave"
        if text:
            yield Violation("belief", process.end, f"{process} {text}", process.finish)


def wakeup(history: History) -> Iterator[Violation]:
    """A free slot with a live waiter at the head is taken within a second."""
    for label in history.labels:
        turn: dict[str, tuple[Stay, float, list[Stay]]] = {}
        final = Change(history.over, history.over, label, "gap", "", 0, 0, None)
        steps = history.tickets(label)
        for change, queue in [*((c, q) for _, c, q in steps), (final, {})]:
            head = list(queue.values())[: history.rules.slots]
            now = {s.nonce: s for s in head if s.state == "waiting"}
            for nonce in turn.keys() - now.keys():
                stay, since, ahead = turn.pop(nonce)
                owner = history.owner(stay)
                # A gap's `at`: until then nothing is known.
                until = min(change.after, owner.dead if owner else -INF)
                late = until - since - history.excused(since, until, owner, ahead=ahead)
                if owner and late > history.rules.wakeup:
                    text = f"{stay} was at the head for {late:.2f} s of a free slot"
                    yield Violation("wakeup", until, text, change)
            for nonce in now.keys() - turn.keys():
                # It waits for these to be granted, too, and they may be paused or dead.
                ahead = list(now.values())[: list(now).index(nonce)]
                turn[nonce] = now[nonce], change.at, ahead


def takeover(history: History) -> Iterator[Violation]:
    """What a dead process left, and any lease, is gone soon after its time."""
    rules = history.rules
    for stay in history.stays:
        if stay.lost:
            continue
        until = stay.end.after if stay.end else history.over
        owner = history.owner(stay)
        if stay.state == "held" and stay.change.kind == "lease":
            base = _extended(history, stay)
            since, ttl = base.change.at, base.lease_timeout
            what = "was held"
        elif owner and owner.dead < INF:
            since = max(owner.dead, stay.change.at)
            is_ticket = stay.change.kind == "lease"
            ttl = rules.waiter_ttl if is_ticket else rules.host_ttl
            what = f"outlived its dead {owner.role}"
        else:
            continue
        late = until - history.last_fault(since, until) - ttl - rules.takeover
        late -= history.excused(until - rules.takeover, until)
        if late > 0 and ttl < INF:
            text = f"{stay} {what} {until - since:.2f} s, ttl {ttl:g} s"
            yield Violation("takeover", until, text, stay.end or stay.change)


def place(history: History) -> Iterator[Violation]:
    """A waiter that lives, and was neither paused nor cut off, keeps its place."""
    for stay in history.stays:
        owner = history.owner(stay)
        is_ticket = stay.change.kind == "lease" and stay.state == "waiting"
        if not (is_ticket and stay.gone and stay.end and owner):
            continue
        began = stay.end.after - history.rules.waiter_ttl - history.rules.resume
        leaving = min(owner.dead, owner.signalled)
        if owner.code != 0:
            leaving = min(leaving, owner.end - STOP_LIMIT)
        if stay.end.at >= leaving or history.disturbed(began, stay.end.at, owner):
            continue
        text = f"{stay} was lost although its acquire-lease lived"
        yield Violation("place", stay.end.at, text, stay.end)


def exit_code(history: History) -> Iterator[Violation]:
    """Exit 0 is given only for what the store's own log shows."""
    for process in history.of("acquire-lease", 0):
        token = process.told("token")
        stay = history.lease(process, token)
        nonces = process.told("nonces") or (stay and stay.nonce) or ()
        if stay and stay.change.after <= process.end and stay.nonce in nonces:
            continue
        text = f"{process} exited with 0 and token {token}, which the store never gave"
        yield Violation("exit_code", process.end, text, process.finish)
    for process in history.of("release-lease", 0):
        for stay in history.by_key[process.label, "lease", process.node]:
            token = process.told("token")
            if token is None or stay.change.version != token:
                continue
            if stay.end is None or stay.end.after > process.end:
                text = f"{process} exited with 0, but {stay} is still there"
                yield Violation("exit_code", process.end, text, process.finish)


def tokens(history: History) -> Iterator[Violation]:
    """Tokens are unique, and grow from one acquisition to the next."""
    by_label: dict[str, list[Process]] = defaultdict(list)
    for process in history.of("acquire-lease", 0):
        if process.told("token") is not None:
            by_label[process.label].append(process)
    for processes in by_label.values():
        counts = Counter(process.told("token") for process in processes)
        ended: list[tuple[float, int, Process]] = []
        largest, best = -1, None
        for process in sorted(processes, key=lambda p: p.begin.at):
            token = process.told("token")
            while ended and ended[0][0] < process.begin.at:
                _, _, earlier = heapq.heappop(ended)
                if earlier.told("token") > largest:
                    largest, best = earlier.told("token"), earlier
            if token <= largest:
                text = f"{process} got token {token} after {largest} of {best}"
                yield Violation("tokens", process.end, text, process.finish)
            elif counts[token] > 1:
                text = f"{process} got token {token}, which another one has too"
                yield Violation("tokens", process.end, text, process.finish)
            heapq.heappush(ended, (process.end, process.run, process))


def clean_exit(history: History) -> Iterator[Violation]:
    """Who ends by a signal or gives up leaves nothing behind, and ends soon."""
    for process in [*history.of("acquire-lease"), *history.of("watch")]:
        if process.code is None or process.code == KILLED or process.died < INF:
            continue
        if process.signalled < process.end:
            took = process.end - process.signalled
            took -= history.excused(process.signalled, process.end, process)
            if took > STOP_LIMIT:
                text = f"{process} ended {took:.2f} s after its signal"
                yield Violation("clean_exit", process.end, text, process.finish)
        kept = process.role == "acquire-lease" and process.code == 0
        asked = min(process.signalled, process.end - STOP_LIMIT)
        paused = any(asked < a < process.end for a, _ in process.pauses)
        if kept or paused or history.disturbed(asked, process.end):
            continue
        kind = "lease" if process.role == "acquire-lease" else "hosts"
        for stay in history.by_key[process.label, kind, process.node]:
            if stay.nonce not in (process.told("nonces") or ()) or stay.lost:
                continue
            if stay.end is None or stay.end.after > process.end:
                text = f"{process} exited with {process.code} and left {stay}"
                yield Violation("clean_exit", process.end, text, process.finish)


def released(history: History) -> Iterator[Violation]:
    """A lease goes early only by its owner's right, and not before it is "up"."""
    for stay in history.stays:
        early = stay.state == "held" and stay.change.kind == "lease" and stay.gone
        if not early or stay.end is None or not _explicit(history, stay):
            continue
        by_hand, by_watch = _releasers(history, stay)
        if by_hand:
            continue
        if not by_watch:
            text = (
                f"{stay} was freed by nobody who may: no probe since it has succeeded"
            )
            yield Violation("released", stay.end.at, text, stay.end)
        elif not _up_at(history, stay.change.label, stay.change.name, stay.ended):
            text = f'{stay} was released before "up" was in the store'
            yield Violation("released", stay.end.at, text, stay.end)


def hosts(history: History) -> Iterator[Violation]:
    """The hosts read after a grant are those that were up, all who had released too."""
    names: dict[str, set[str]] = defaultdict(set)
    known: dict[str, set[str]] = defaultdict(set)
    for (label, kind, name), stays in history.by_key.items():
        if kind == "hosts" and stays:  # other rules ask for what never was there
            names[label].add(name)
            known[label] |= {str((s.change.value or {}).get("host")) for s in stays}
    for process in history.of("hosts", 0):
        listed = set(process.told("hosts"))
        for host in sorted(listed - known[process.label]):
            text = f"{process} lists {host}, which never was in the store"
            yield Violation("hosts", process.end, text, process.finish)
        grant = history.lease(process, process.told("grant"))
        for name in sorted(names[process.label]):
            stays = history.by_key[process.label, "hosts", name]
            must = grant is not None and _stays_up(history, stays, grant, process.end)
            may = _may_be_up(stays, process)
            host = str((stays[0].change.value or {}).get("host"))
            if must and host not in listed:
                text = f"{process} misses {name}, which was up before the grant"
                yield Violation("hosts", process.end, text, process.finish)
            if host in listed and not may:
                text = f"{process} lists {name}, which was not up"
                yield Violation("hosts", process.end, text, process.finish)


def orphans(history: History) -> Iterator[Violation]:
    """When all is over nothing outlives twice its TTL, whoever may have written it."""
    if not any(event.kind == "end" for event in history.events):
        return
    for stay in history.stays:
        if stay.end is not None:
            continue
        owner, rules = history.owner(stay), history.rules
        since = stay.change.at
        if owner:
            since = max(since, owner.dead)
        if stay.change.kind == "hosts":
            ttl = rules.host_ttl
        else:
            is_held = stay.state == "held"
            ttl = stay.lease_timeout if is_held else rules.waiter_ttl
        lived = history.over - history.last_fault(since, history.over)
        if lived > 2 * ttl:
            text = f"{stay} is still there after {lived:.1f} s, ttl {ttl:g} s"
            yield Violation("orphans", history.over, text, stay.change)


def ending(history: History) -> Iterator[Violation]:
    """A command fails, and `watch` ends, only by a signal or by a fault."""
    for process in history.processes.values():
        well = process.code == 0 and process.role != "watch"
        asked = process.signalled < process.end or process.died < INF
        if process.finish is None or well or asked:
            continue
        if not history.disturbed(process.begin.at, process.end, process):
            text = f"{process} ended with {process.code}, and nothing was wrong"
            yield Violation("ending", process.end, text, process.finish)


Rule = Callable[[History], Iterator[Violation]]
RULES: tuple[Rule, ...] = (
    *(exclusion, order, belief, wakeup, takeover, place, exit_code, tokens),
    *(clean_exit, released, hosts, orphans, ending),
)


def check(
    events: Iterable[Event], changes: Sequence[Change], rules: Rules
) -> list[Violation]:
    """Return every violation, the earliest first."""
    history = History(events, changes, rules)
    found = [violation for rule in RULES for violation in rule(history)]
    return sorted(found, key=lambda violation: violation.at)


def verdict(
    violations: Sequence[Violation],
    events: Iterable[Event],
    changes: Iterable[Change],
    around: int = 6,
) -> str:
    """Name the first bad event with what happened before and after it, for people."""
    if not violations:
        return "no violations"
    first = violations[0]
    label = first.item.label if first.item else ""
    items: list[Event | Change] = [*events, *changes]
    told = sorted(
        (
            item
            for item in items
            if item.label in (label, "") and not _is_noise(item, first)
        ),
        key=lambda item: item.at,
    )
    middle = bisect_left([item.at for item in told], first.at)
    if first.item in told:
        middle = told.index(first.item)
    lines = [str(first), ""]
    for n in range(max(0, middle - around), min(len(told), middle + around + 1)):
        mark = ">" if n == middle else " "
        lines.append(f"{mark} {told[n].at - first.at:+9.3f} s  {told[n]}")
    if len(violations) > 1:
        counts = Counter(violation.rule for violation in violations)
        listed = ", ".join(f"{rule} {n}" for rule, n in counts.most_common())
        lines += ["", f"{len(violations)} violations in all: {listed}"]
    return "\n".join(lines)


def _is_noise(item: Event | Change, first: Violation) -> bool:
    return isinstance(item, Event) and item.kind == "probe" and item is not first.item


# --- what the rules ask ---------------------------------------------------------------


def _explicit(history: History, stay: Stay) -> bool:
    """Tell whether a lease surely was deleted, and not just out of time.

    On etcd v3 its time runs from the keepalive before the grant, which may be slow.
    """
    assert stay.end
    if stay.end.expired is not None:
        return not stay.end.expired
    first = stay
    while first.before and first.before.state == "held":
        first = first.before
    if not first.change.seen:
        return False
    ends = first.change.after + first.lease_timeout
    if owner := history.owner(first):
        # Who was killed tells no deadline.
        began = owner.begin.at + first.lease_timeout
        ends = min(ends, owner.told("deadline") or began)
    return stay.end.at < ends - 0.05


def _releasers(history: History, stay: Stay) -> tuple[list[Process], list[Process]]:
    """Find who may have deleted a lease at its end: commands, and watches."""
    assert stay.end
    change, end = stay.change, stay.end
    by_hand, by_watch = [], []
    probes = history.probes.get((change.label, change.name), ())
    succeeded = any(
        began >= change.after and answered <= end.at for began, answered in probes
    )
    for process in history.by_node[change.label, change.name]:
        # A request of a process just killed may still arrive.
        if process.begin.at > end.at or process.end < end.after - 1.0:
            continue
        if process.role == "watch" and succeeded:
            by_watch.append(process)
        if process.role == "release-lease":
            by_hand.append(process)
        nonces = process.told("nonces")
        is_own = nonces is None or stay.nonce in nonces
        kept = process.code == 0 and process.told("token") == change.version
        if process.role == "acquire-lease" and is_own and not kept:
            by_hand.append(process)
    return by_hand, by_watch


def _extended(history: History, stay: Stay) -> Stay:
    """Find the write that this lease's time is counted from.

    Asking again extends it, but not while somebody waited since before the asking.
    """
    while stay.before and stay.before.state == "held":
        owner = history.owner(stay)
        if not owner or not _somebody_waited(history, stay, owner):
            return stay
        stay = stay.before
    return stay


def _somebody_waited(history: History, stay: Stay, asking: Process) -> bool:
    for (label, kind, name), stays in history.by_key.items():
        if label != stay.change.label or kind != "lease" or name == stay.change.name:
            continue
        other = _at(stays, stay.index)
        if other and other.state == "waiting" and other.change.at < asking.begin.at:
            return True
    return False


def _at(stays: Sequence[Stay], index: int) -> Stay | None:
    """Find the stay of a key that was live when the change at `index` was made."""
    n = bisect_right(stays, index, key=lambda stay: stay.index) - 1
    if n < 0:
        return None
    stay = stays[n]
    return stay if stay.ended is None or stay.ended > index else None


def _up_at(history: History, label: str, name: str, index: int | None) -> bool:
    assert index is not None
    stay = _at(history.by_key[label, "hosts", name], index)
    return stay is not None and stay.state == "up"


def _stays_up(
    history: History, stays: Sequence[Stay], grant: Stay, until: float
) -> bool:
    """Tell whether a service was up at a grant and surely for so long."""
    stay = _at(stays, grant.index)
    if stay is None:
        return False
    first = bisect_left(stays, stay.index, key=lambda stay: stay.index)
    for n in range(first, len(stays)):
        current = stays[n]
        if current.state != "up":
            return False
        if current.end is None or current.end.after >= until:
            return True
        later = stays[n + 1 : n + 2]
        if not later or later[0].index != current.ended:
            return False
    return False


def _may_be_up(stays: Sequence[Stay], process: Process) -> bool:
    return any(
        stay.state == "up"
        and stay.change.after <= process.end
        and (stay.end is None or stay.end.at >= process.begin.at)
        for stay in stays
    )

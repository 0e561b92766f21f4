"""The thirteen rules: each yields what breaks it in a history.

Rules about who and in which order rest on the store's order alone. Rules about time use
bounds: a change took place between its `after` and its `at`, so "too late" means that
even the shortest time between two things was too long.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from integration.history.evidence import (
    explicit,
    extended,
    may_be_up,
    releasers,
    stays_up,
    up_at,
)
from integration.history.recorder import Change, Event
from integration.history.relations import INF, History, Process, Stay

KILLED, STOP_LIMIT = -9, 2.5  # seconds from SIGTERM to the end, the machine's own apart
TINY = 0.001  # seconds; two readings of one clock


@dataclass(frozen=True)
class Violation:
    """A broken promise, at the event or change that shows it."""

    rule: str
    at: float
    text: str
    item: Event | Change | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


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
            and not any(releasers(history, stay))
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
            base = extended(history, stay)
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
        if not early or stay.end is None or not explicit(history, stay):
            continue
        by_hand, by_watch = releasers(history, stay)
        if by_hand:
            continue
        if not by_watch:
            text = (
                f"{stay} was freed by nobody who may: no probe since it has succeeded"
            )
            yield Violation("released", stay.end.at, text, stay.end)
        elif not up_at(history, stay.change.label, stay.change.name, stay.ended):
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
            must = grant is not None and stays_up(history, stays, grant, process.end)
            may = may_be_up(stays, process)
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

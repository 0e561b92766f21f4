"""How nodes waited, started and came up: events in, lanes and figures out.

No I/O and no dependency. A `Run` is a list of events of one start of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

# Each of these events ends the phase its node is in and begins this one:
PHASES = {
    "queued": "waiting",
    "started": "starting",
    "healthy": "up",
    "stopped": "",
    "failed": "",
}


@dataclass(frozen=True)
class Event:
    """Say what happened to a node at a time in seconds, counted from any moment.

    The kinds are those of `PHASES`, and `joined` and `elected`, whose detail names the
    cluster. Others are ignored here.
    """

    at: float
    node: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Phase:
    """Span of time in which a node was `waiting`, `starting` or `up`."""

    kind: str
    start: float
    end: float


@dataclass
class Lane:
    """What one node went through; `cluster` is the last one it joined or founded."""

    node: str
    phases: list[Phase] = field(default_factory=list)
    cluster: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Run:
    """One start of a cluster, to be drawn as one panel.

    `told` replaces the summary; `faults` are what happened to all nodes at once.
    """

    title: str
    events: Sequence[Event]
    told: str = ""
    faults: Sequence[Phase] = ()


@dataclass(frozen=True)
class Figures:
    """Where the time of a run went, in seconds.

    `boots` are the boot times of the nodes, `gaps` the times between the first start
    and the last node up in which no node was starting: the hand-overs.
    """

    total: float
    until_first_start: float
    boots: tuple[float, ...]
    gaps: tuple[tuple[float, float], ...]

    @property
    def handover(self) -> float:
        return sum(end - start for start, end in self.gaps)

    @property
    def ratio(self) -> float:
        """Give the total time as a multiple of the sum of the boot times."""
        return self.total / sum(self.boots) if sum(self.boots) else 0.0


def lanes(events: Iterable[Event], until: float) -> list[Lane]:
    """Give each node its lane, the first to start first; open phases end at `until`."""
    found: dict[str, Lane] = {}
    current: dict[str, tuple[str, float]] = {}

    def close(lane: Lane, at: float) -> None:
        kind, since = current.pop(lane.node, ("", at))
        if kind:
            lane.phases.append(Phase(kind, since, at))

    for event in sorted(events, key=lambda event: event.at):
        lane = found.setdefault(event.node, Lane(event.node))
        if event.kind in ("joined", "elected"):
            lane.cluster = event.detail
        if event.kind not in PHASES:
            continue
        close(lane, event.at)
        current[lane.node] = PHASES[event.kind], event.at
        if event.kind == "failed":
            lane.failure = event.detail or "failed"
    for lane in found.values():
        close(lane, until)

    def first_start(lane: Lane) -> float:
        starts = (p.start for p in lane.phases if p.kind == "starting")
        return next(starts, float("inf"))

    return sorted(found.values(), key=first_start)


def figures(events: Sequence[Event]) -> Figures:
    """Measure a run from its first event until the last node came up."""
    start, _ = span(events)
    end = max((event.at for event in events if event.kind == "healthy"), default=start)
    starting = sorted(
        (phase.start, phase.end)
        for lane in lanes(events, end)
        for phase in lane.phases
        if phase.kind == "starting"
    )
    gaps, busy_until = [], starting[0][0] if starting else start
    for begin, finish in starting:
        if begin > busy_until:
            gaps.append((busy_until, begin))
        busy_until = max(busy_until, finish)
    boots = tuple(finish - begin for begin, finish in starting)
    until_first = starting[0][0] - start if starting else 0.0
    return Figures(end - start, until_first, boots, tuple(gaps))


def span(events: Iterable[Event]) -> tuple[float, float]:
    """Give the times of the first and the last event."""
    times = [event.at for event in events] or [0.0]
    return min(times), max(times)


def cluster_letters(events: Iterable[Event]) -> dict[str, str]:
    """Name the clusters A, B, C ... in the order of the lanes."""
    uuids = dict.fromkeys(lane.cluster for lane in lanes(events, 0) if lane.cluster)
    return {
        uuid: ascii_uppercase[n % 26] + (str(n // 26 + 1) if n > 25 else "")
        for n, uuid in enumerate(uuids)
    }


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def summary(events: Sequence[Event], clusters: int | None = None) -> str:
    """Say in one sentence what the nodes of a run formed, and where its time went.

    Clusters are counted from the events, unless the nodes have been asked.
    """
    found, seen = figures(events), lanes(events, 0)
    count = len(cluster_letters(events)) if clusters is None else clusters
    formed = plural(count, "cluster")
    text = f"{plural(len(seen), 'node')} formed {formed} in {found.total:.1f} s"
    if found.gaps:
        handovers = plural(len(found.gaps), "hand-over")
        text += f": {found.until_first_start:.1f} s until the first start, "
        text += f"{sum(found.boots):.1f} s of booting, "
        text += f"{found.handover:.1f} s in {handovers}"
    return text

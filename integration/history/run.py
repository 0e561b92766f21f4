"""Put the lease under fire, judge what happened, and report it.

    python -m integration.history.run --minutes 10 --seed 1 --store etcd

The exit code is 0 if all went well, 1 after a violation or an error, 2 on misuse.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import click

from integration.faults.etcd_cluster import EtcdCluster, obstacle
from integration.history.checker import check, verdict
from integration.history.lives import IN_A_TRANSACTION, STOPS, Settings
from integration.history.recorder import Change, Event, write_lines
from integration.history.relations import BEGIN, History, Stay
from integration.history.rig import Rig
from integration.history.rules import Violation
from integration.history.store_faults import (
    ClusterFaults,
    DynamoFaults,
    FaultSource,
    SqliteFaults,
)
from integration.simulation import drawing, timeline
from integration.support.dynamodb import start_dynamodb
from integration.support.etcd import start_etcd

QUOTA = 64 * 2**20  # bytes; what a long run writes must fit, compaction is a fault
DRAWN = 60.0  # seconds of one label that the page shows, around the first violation


@dataclass(frozen=True)
class Outcome:
    """What a run left to be judged, and the verdict."""

    settings: Settings
    events: Sequence[Event]
    changes: Sequence[Change]
    violations: Sequence[Violation]
    seconds: float

    @property
    def acquisitions(self) -> int:
        return sum(
            event.kind == "acquire" and event.data.get("code") == 0
            for event in self.events
        )

    @property
    def errors(self) -> list[str]:
        """List what went wrong with the run itself, or ended as no command may."""
        lost = [str(change) for change in self.changes if change.kind == "gap"]
        return [*(str(event) for event in self.events if event.kind == "error"), *lost]

    def outages(self) -> Iterator[timeline.Phase]:
        """List the faults of the store, and how long each lasted."""
        begun: dict[int, Event] = {}
        for event in self.events:
            if event.kind == "fault" and event.data["target"] == "store":
                begun[event.data["id"]] = event
            elif event.kind == "mended" and event.data["id"] in begun:
                fault = begun.pop(event.data["id"])
                yield timeline.Phase(fault.data["what"], fault.at, event.at)

    @property
    def faults(self) -> dict[str, Counter[str]]:
        """Count the faults that struck: of the store, and of our processes."""
        missed = {
            event.data["id"]
            for event in self.events
            if event.kind == "mended" and not event.data.get("struck", True)
        }
        roles = {e.run: BEGIN[e.kind] for e in self.events if e.kind in BEGIN}
        counts: dict[str, Counter[str]] = {}
        for event in self.events:
            if event.kind != "fault" or event.data["id"] in missed:
                continue
            # A `watch` that is stopped because its node goes down is no fault.
            if event.data.get("orderly") or event.data.get("noticed"):
                continue
            what, target = str(event.data["what"]), str(event.data["target"])
            if target == "process":
                what = f"{what} {roles[event.run]}"
            if of := event.data.get("of"):
                what += f" of {of}"
            if where := event.data.get("where"):
                inside = where == IN_A_TRANSACTION
                what += " inside a transaction" if inside else " at a store call"
            if ttls := event.data.get("ttls"):
                what += f" for {ttls:g} ttl"
            counts.setdefault(target, Counter())[what] += 1
        return counts


@dataclass(frozen=True)
class Stage:
    """A store to run on: how commands and the observer reach it, and its faults."""

    url: str
    observed: str = ""
    faults: FaultSource | None = None


@contextmanager
def stage(store: str) -> Iterator[Stage]:
    """Start a store of this kind, or take the one at this URL."""
    api = store if store in ("etcd", "etcd2") else None
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            url = f"sqlite://{directory}/store.db"
            yield Stage(url, faults=SqliteFaults(url))
    elif store == "dynamodb":
        with start_dynamodb() as dynamodb, dynamodb.proxied() as proxy:
            direct = dynamodb.make_table()
            url = direct.replace(dynamodb.endpoint, f"http://{proxy.endpoint}")
            yield Stage(url, direct, DynamoFaults(dynamodb, proxy))
    elif api and (reason := obstacle()):
        print(f"one etcd, and no faults of it: {reason}", file=sys.stderr)
        with start_etcd(prefer="process") as server:
            yield Stage(isolated(server.url if api == "etcd" else server.url_v2))
    elif api:
        with EtcdCluster(proxied=True, quota=QUOTA) as cluster:
            url, direct = (
                f"{api}://{','.join(endpoints)}/history"
                for endpoints in (cluster.endpoints, cluster.direct_endpoints)
            )
            yield Stage(url, direct, ClusterFaults(cluster, v2=api == "etcd2"))
    else:
        yield Stage(isolated(store))


def isolated(url: str) -> str:
    """Give an etcd URL a prefix of this run's own."""
    if url.startswith(("sqlite", "dynamodb")) or url.count("/") > 2:
        return url
    return f"{url}/history-{uuid.uuid4().hex[:8]}"


def fire(
    settings: Settings,
    seconds: float,
    directory: Path | None = None,
    faults: FaultSource | None = None,
) -> Outcome:
    """Run a workload for so long, end it in order, and judge it."""
    with Rig(settings, directory, faults) as rig:
        rig.run(seconds)
    events, changes = rig.record.events, rig.observer.changes
    if directory:
        write_lines(directory / "changes.jsonl", changes)
    rules = settings.rules()
    found = check(events, changes, rules)
    return Outcome(settings, events, changes, found, seconds)


Span = tuple[float, float]

# --- the report -----------------------------------------------------------------------


def percentiles(spans: Sequence[Span]) -> str:
    """Give the 50th, 90th, 99th percentile and the largest, in milliseconds."""
    if not spans:
        return "none"
    ordered = sorted(end - begin for begin, end in spans)

    def at(share: float) -> str:
        return f"{1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.0f}"

    shown = f"p50 {at(0.5)} ms, p90 {at(0.9)} ms, p99 {at(0.99)} ms"
    return f"{shown}, max {1000 * ordered[-1]:.0f} ms, n {len(ordered)}"


def changeovers(history: History) -> tuple[list[Span], list[Span]]:
    """Find hand-overs and takeovers, as seen by the observer.

    Both while somebody waited: a hand-over is from a release to the next grant, a
    takeover from the time at which a lease that nobody released was over.
    """
    handovers: list[Span] = []
    takeovers: list[Span] = []
    for label in history.labels:
        held: dict[str, Stay] = {}
        free: tuple[float, bool] | None = None  # since when, and if time freed it
        for _, change, queue in history.tickets(label):
            stay, ended = queue.get(change.name), held.get(change.name)
            if ended and change.name not in queue and queue:
                over = ended.change.at + ended.lease_timeout
                free = min(change.at, over), change.at >= over - 0.05
            elif free and stay and stay.change is change and stay.granted:
                (takeovers if free[1] else handovers).append((free[0], change.at))
                free = None
            held = {name: stay for name, stay in queue.items() if stay.state == "held"}
    return handovers, takeovers


def report(outcome: Outcome) -> str:
    """Say in some lines what was done and what came of it."""
    faults = outcome.faults
    settings = outcome.settings
    history = History(outcome.events, outcome.changes, outcome.settings.rules())
    handovers, takeovers = changeovers(history)
    quiet = [(a, b) for a, b in handovers if not history.disturbed(a, b)]
    codes: dict[str, Counter[object]] = defaultdict(Counter)
    for process in history.processes.values():
        codes[process.role][process.code] += 1
    errors = outcome.errors
    noticed = Counter(e.data["what"] for e in outcome.events if e.data.get("noticed"))
    excused = ", ".join(f"{what} {n}" for what, n in noticed.items()) or "none"
    rate = outcome.acquisitions / outcome.seconds * 60
    told = [
        f"seed {settings.seed}, {settings.labels} labels of {settings.nodes} nodes, "
        f"{outcome.seconds:g} s, waiter ttl {settings.waiter_ttl:g} s",
        f"acquisitions   {outcome.acquisitions} ({rate:.0f} a minute)",
        *(
            f"{role:15}" + ", ".join(f"{n} ended {c}" for c, n in ended.most_common())
            for role, ended in sorted(codes.items())
        ),
        f"store changes  {len(outcome.changes)}",
        f"noticed        {excused}",
        f"hand-over      {percentiles(handovers)}",
        f"  undisturbed  {percentiles(quiet)}",
        f"takeover       {percentiles(takeovers)}",
        f"errors         {len(errors)} {errors[0] if errors else ''}".rstrip(),
        f"violations     {len(outcome.violations)}",
        f"faults         {sum(map(Counter.total, faults.values()))}",
    ]
    for target, counts in sorted(faults.items()):
        told.append(f"  of the {target:6} {counts.total()}")
        told += [f"{n:12}  {what}" for what, n in sorted(counts.items())]
    if outcome.violations:
        told += ["", verdict(outcome.violations, outcome.events, outcome.changes)]
    return "\n".join(told)


def picture(outcome: Outcome) -> str:
    """Draw a minute of one label: of the first violation, or of the first faults."""
    first = outcome.violations[0] if outcome.violations else None
    label = first.item.label if first and first.item else "l0"
    faults = list(outcome.outages())
    begins = min((event.at for event in outcome.events), default=0.0)
    if first:
        begins = max(begins, first.at - DRAWN / 2)
    elif faults:
        begins = max(begins, faults[0].start - DRAWN / 12)
    names = {"enqueue": "queued", "acquire": "started", "release-seen": "healthy"}
    names |= {"unhealthy": "stopped", "lost": "stopped"}
    drawn = []
    for event in outcome.events:
        kind = names.get(event.kind)
        if event.label != label or not begins <= event.at <= begins + DRAWN or not kind:
            continue
        if event.kind == "acquire" and event.data.get("code") != 0:
            kind = "stopped"
        shown = timeline.Event(event.at, event.node, kind, str(event))
        drawn.append(shown)
    told = "each node queues, starts, comes up and goes, again and again"
    over = [fault for fault in faults if begins <= fault.start <= begins + DRAWN]
    run = timeline.Run(f"{label}, {DRAWN:g} s of it", drawn, told, over)
    page = drawing.html([run], "The lease under fire")
    text = f"<pre>{escape(report(outcome))}</pre>"
    return page.replace("</h1>", f"</h1>\n{text}", 1)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=float, default=1.0, show_default=True, metavar="N")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option(
    "--store",
    default="etcd",
    show_default=True,
    metavar="KIND|URL",
    help="Start an etcd (three members, for the v3 API), etcd2, sqlite or dynamodb "
    "(moto), and let it fail too; or use the store at this URL, and leave it alone.",
)
@click.option("--nodes", type=click.IntRange(1), default=6, show_default=True)
@click.option("--labels", type=click.IntRange(1), default=4, show_default=True)
@click.option("--slots", type=click.IntRange(1), default=1, show_default=True)
@click.option("--calm", type=click.FloatRange(0, 1), default=0.9, show_default=True)
@click.option("--waiter-ttl", type=float, default=3.0, show_default=True)
@click.option("--bug", help="Plant a seeded bug: see integration.history.seeded.")
@click.option(
    "--report", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE"
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIRECTORY",
    help="Keep events.jsonl and changes.jsonl there.",
)
def command(
    minutes: float,
    seed: int,
    store: str,
    nodes: int,
    labels: int,
    slots: int,
    calm: float,
    waiter_ttl: float,
    bug: str | None,
    page: Path | None,
    keep: Path | None,
) -> int:
    """Let nodes acquire, boot, come up, release and die at random; judge the history.

    The seed fixes what each node does and what befalls it, not the timing.
    """
    with ExitStack() as stack:
        target = stack.enter_context(stage(store))
        settings = Settings(
            store=target.url,
            observed=target.observed,
            labels=labels,
            nodes=nodes,
            slots=slots,
            seed=seed,
            calm=calm,
            waiter_ttl=waiter_ttl,
            bug=bug,
            stops=(*STOPS, IN_A_TRANSACTION) if "sqlite" in target.url else STOPS,
        )
        outcome = fire(settings, minutes * 60, keep, target.faults)
    click.echo(report(outcome))
    if page:
        page.write_text(picture(outcome), encoding="utf-8")
    return int(bool(outcome.violations or outcome.errors))


def main(argv: Sequence[str] | None = None) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by `... &`
    try:
        code: int = command.main(argv, prog_name="history", standalone_mode=False)
    except click.ClickException as error:
        print(f"history: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())

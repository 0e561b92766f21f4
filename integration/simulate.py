"""Boot a simulated cluster, without and with the lease, and say what came of it."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from integration.simulation import drawing, timeline
from integration.simulation.cluster import Cluster, CommandError, TicketOrder
from integration.simulation.node import ClusterError
from integration.simulation.timeline import Event, Run
from integration.support.dynamodb import start_dynamodb
from integration.support.engine import docker_available
from integration.support.etcd import EtcdError, start_etcd

NODE_TIMEOUT = 60.0  # seconds per node until the simulation counts as hung
LOOK_EVERY = 1.0  # seconds between two looks at the queue, each a process of the CLI
WORDS = {
    "queued": "is switched on",
    "granted": "has the lease, token",
    "hosts": "sees",
    "started": "starts its service",
    "elected": "founds cluster",
    "joined": "joins cluster",
    "healthy": "is up",
    "stopped": "is down:",
    "failed": "FAILED:",
}
COLOURS = {"waiting": "dim", "starting": "yellow", "up": "green"}

progress = Console(stderr=True, highlight=False)


@dataclass
class Outcome:
    """What came of one start: the nodes' own word, and what was seen meanwhile."""

    run: Run
    lease: bool
    slots: int
    formed: dict[str, dict[str, int]]  # cluster: its nodes, and how many each counts
    queue: list[str]
    failure: str = ""

    @property
    def failed(self) -> bool:
        """Tell whether this is not what users are promised."""
        return bool(self.failure) or (self.lease and len(self.formed) != 1)


@dataclass
class View:
    """Show events as they come: a table on a terminal, else a line each."""

    cluster: Cluster | None = None
    leases: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0

    def event(self, event: Event) -> None:
        """Print an event where there is no table."""
        if not progress.is_terminal:
            detail = event.detail or ("nobody" if event.kind == "hosts" else "")
            told = f"{event.at - self.began:6.2f} s  {event.node:8}{WORDS[event.kind]}"
            progress.print(f"{told} {detail}".rstrip(), soft_wrap=True)

    def __rich__(self) -> Table:
        table = Table("node", "address", "phase", "seconds", "place in the queue")
        if not self.cluster:
            return table
        now, events = time.monotonic(), self.cluster.events()
        lanes = {lane.node: lane for lane in timeline.lanes(events, now)}
        letters = timeline.cluster_letters(events)
        places = {lease["service_id"]: lease for lease in self.leases}
        for node in self.cluster.nodes:
            lane = lanes.get(node.name)
            if not lane or lane.failure or not lane.phases:
                failure = Text(lane.failure if lane else "", style="red")
                table.add_row(node.name, node.address, failure, "", "")
                continue
            phase = lane.phases[-1]
            what = phase.kind
            if what == "up" and lane.cluster:
                what = f"up in cluster {letters[lane.cluster]}"
            place = ""
            if (lease := places.get(node.name)) and phase.kind != "up":
                waits = lease["state"] == "waiting" and phase.kind == "waiting"
                place = str(lease["position"]) if waits else "its turn"
            told = Text(what, style=COLOURS[phase.kind])
            seconds = f"{phase.end - phase.start:.1f}"
            table.add_row(node.name, node.address, told, seconds, place)
        return table


def start_cluster(
    stack: contextlib.ExitStack, view: View, store: str, **settings: Any
) -> Cluster:
    """Make a cluster that ends, with its files, together with the stack."""
    directory = stack.enter_context(
        tempfile.TemporaryDirectory(prefix="service-monitor-simulation-")
    )
    cluster = Cluster(
        store=store,
        label=f"simulated-{uuid.uuid4().hex[:8]}",
        directory=Path(directory),
        on_event=view.event,
        **settings,
    )
    return stack.enter_context(cluster)


def simulate(cluster: Cluster, view: View, title: str) -> Outcome:
    """Start the nodes of a cluster and follow them until all are up, or one fails."""
    tickets, done = TicketOrder(), threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            with contextlib.suppress(ClusterError, OSError):
                view.leases = cluster.leases()
                tickets.see(view.leases)

    view.cluster, view.leases, view.began = cluster, [], time.monotonic()
    failure, looking = "", threading.Thread(target=look, daemon=True)
    progress.print(f"\n{title}", style="bold")
    with live(view):
        cluster.start()
        if cluster.lease:
            looking.start()
        try:
            cluster.wait_up(NODE_TIMEOUT * len(cluster.nodes))
        except ClusterError as error:
            failure = str(error)
        finally:
            done.set()
    return Outcome(
        Run(title, cluster.events()),
        cluster.lease,
        cluster.slots,
        cluster.formed(),
        tickets.names,
        failure,
    )


@contextlib.contextmanager
def live(view: View) -> Iterator[None]:
    """Show the view as a table while the block runs, if anyone can see it."""
    if progress.is_terminal:
        with Live(view, console=progress, refresh_per_second=8):
            yield
    else:
        yield


def verdict(outcome: Outcome) -> str:
    """Say in some lines what came of a start."""
    events, formed = outcome.run.events, outcome.formed
    letters = timeline.cluster_letters(events)
    told = [f"{outcome.run.title}: {timeline.summary(events, len(formed))}"]
    for cluster, counts in sorted(formed.items(), key=lambda c: letters.get(c[0], "")):
        told.append(f"  cluster {letters.get(cluster, cluster)}: {', '.join(counts)}")
        if set(counts.values()) != {len(counts)}:
            told.append(f"  but its nodes count {list(counts.values())} members")
    if outcome.failure:
        told.append(f"  FAILED: {outcome.failure}")
    if not outcome.lease:
        if len(formed) > 1:
            told.append("  Split: nobody waited, so nobody saw the others.")
        elif not outcome.failure:
            told.append("  It happened NOT to split this time; nothing prevents it.")
        return "\n".join(told)
    if len(formed) > 1:
        told.append("  FAILED: more than one cluster with the lease on.")
        if outcome.slots > 1:
            told.append(
                f"  With --slots {outcome.slots} the first {outcome.slots} nodes start "
                "together and see nobody: use 1 slot until the cluster exists."
            )
    starts = [event.node for event in events if event.kind == "started"]
    # A ticket that came and went between two looks at the queue is not in its order.
    seen = [name for name in starts if name in outcome.queue]
    same = "the same"
    if seen != [name for name in outcome.queue if name in starts]:
        same = "those whose turn it is together start in any order"
        same = same if outcome.slots > 1 else "NOT the same"
    told.append(f"  queue order: {' '.join(outcome.queue)}")
    told.append(f"  start order: {' '.join(starts)} ({same})")
    figures = timeline.figures(events)
    if figures.gaps:
        each = figures.handover / len(figures.gaps)
        told.append(
            f"  in all {figures.ratio:.2f} times the {sum(figures.boots):.1f} s of "
            f"booting; {each:.2f} s for each hand-over"
        )
    return "\n".join(told)


def open_store(stack: contextlib.ExitStack, url: str | None) -> str:
    """Give the store's URL, of an etcd of our own if none was named."""
    if url == "dynamodb":
        return stack.enter_context(start_dynamodb()).make_table()
    if url:
        return url
    progress.print("starting etcd ...")
    try:
        return stack.enter_context(start_etcd(prefer="process")).url
    except EtcdError:
        if not docker_available():
            raise
        return stack.enter_context(start_etcd(prefer="docker")).url


def keep_running(cluster: Cluster) -> None:
    """Say how to ask the cluster, and wait for Ctrl-C."""
    asking = f"--store {cluster.store} --label {cluster.label}"
    click.echo(
        f"\nIt stays up until Ctrl-C. To ask it:\n  service-monitor hosts {asking}"
    )
    click.echo(f"  service-monitor status {asking}")
    for node in cluster.nodes:
        click.echo(f"  curl http://{node.address}/_cluster/health")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def write_report(path: Path, runs: Sequence[Run]) -> None:
    draw = drawing.svg if path.suffix == ".svg" else drawing.html
    path.write_text(draw(runs), encoding="utf-8")


def report_path(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a report that could not be written at the end."""
    if path and path.suffix not in (".svg", ".html"):
        raise click.BadParameter(f"{path}: the name must end in .svg or .html")
    if path and not path.parent.is_dir():
        raise click.BadParameter(f"{path}: there is no directory {path.parent}")
    return path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--nodes", type=click.IntRange(1, 250), default=5, show_default=True, metavar="N"
)
@click.option("--no-lease", is_flag=True, help="Only the run without the lease.")
@click.option("--by-run", is_flag=True, help="Nodes start by `run`.")
@click.option(
    "--slots",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many nodes may start at the same time.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Use this store, or moto's with the word dynamodb; else start an etcd.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Choose other boot times."
)
@click.option("--keep", is_flag=True, help="Leave the cluster running until Ctrl-C.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=report_path,
    metavar="FILE",
    help="Write the timeline to FILE, as .svg or .html.",
)
def command(
    nodes: int,
    no_lease: bool,
    by_run: bool,
    slots: int,
    store: str | None,
    seed: int,
    keep: bool,
    report: Path | None,
) -> int:
    """Boot ElasticSearch-like nodes at the same moment, without and with the lease.

    Every node is a handful of real processes: acquire-lease, hosts, a fake
    ElasticSearch that boots for 2 to 4 seconds, and watch; or one run around it.

    Exits with 0; 1 if more than one cluster formed with the lease on or a node failed;
    2 on bad usage; 69 if there is no store.
    """
    outcomes = []
    with contextlib.ExitStack() as stack:
        url = open_store(stack, store)
        for lease in (False,) if no_lease else (False, True):
            title = "With the lease" if lease else "Without the lease"
            with contextlib.ExitStack() as inner:
                view = View()
                settings = {
                    "count": nodes,
                    "lease": lease,
                    "by_run": by_run,
                    "slots": slots,
                    "seed": seed,
                }
                cluster = start_cluster(inner, view, url, **settings)
                cluster.status()  # a store that is of no use is told before the start
                outcomes.append(simulate(cluster, view, title))
                click.echo(verdict(outcomes[-1]))
                if report:
                    write_report(report, [outcome.run for outcome in outcomes])
                if keep and (lease or no_lease):
                    keep_running(cluster)
    return int(any(outcome.failed for outcome in outcomes))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; everything it started ends with it, also by a signal."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by `... &`
    try:
        code: int = command.main(argv, prog_name="simulate", standalone_mode=False)
    except click.ClickException as error:
        message, code = error.format_message(), error.exit_code
    except click.Abort:
        message, code = "stopped", 128 + signal.SIGINT
    except CommandError as error:
        message, code = error.last_line, error.code
    except (ClusterError, EtcdError) as error:
        message, code = str(error), 69
    else:
        return code
    print(f"simulate: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

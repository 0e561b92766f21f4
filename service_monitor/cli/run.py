"""The command `run`: wait, start COMMAND, watch it, end with it."""

from __future__ import annotations

import click

from service_monitor.cli import options
from service_monitor.cli.advertising import Advertising, advertising_options
from service_monitor.cli.command_help import REFUSED, Command
from service_monitor.cli.founding import FoundingChoice, founding_options
from service_monitor.cli.identity import Identity, identity_options
from service_monitor.cli.leasing import Leasing, leasing_options
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.probing import Probing, probing_options
from service_monitor.cli.process import Process
from service_monitor.cli.stopping import Stopping, stopping_options
from service_monitor.cli.watching import new_notifier, service_to_publish


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    exits={
        0: "as any code that is COMMAND's own; 128 plus the number of its signal",
        1: "not acquired within --acquire-timeout; taken over by another one of this "
        "service id; or the lease was lost",
        126: "COMMAND cannot be executed",
        127: "COMMAND is not there, or what it needs to run is not",
    }
    | REFUSED,
)
@identity_options
@probing_options
@advertising_options
@leasing_options
@founding_options
@option(
    "--on-lease-timeout",
    type=click.Choice(["fail", "start"]),
    default="fail",
    help="What to do when the turn does not come within --acquire-timeout.",
)
@option(
    "--on-lease-lost",
    type=click.Choice(["continue", "stop"]),
    show_default="stop while SERVICE_MONITOR_FIRST is 1, else continue",
    help="What to do when the lease is lost before COMMAND is up.",
)
@stopping_options
@options.heartbeat_file
@store_option
@options.log_level
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    process: Process,
    /,
    identity: Identity,
    probing: Probing,
    advertising: Advertising,
    leasing: Leasing,
    founding: FoundingChoice,
    on_lease_timeout: str,
    on_lease_lost: str | None,
    stopping: Stopping,
    heartbeat_file: str | None,
    store: StoreChoice,
    command: tuple[str, ...],
) -> int:
    """Start COMMAND when it is its turn, and watch it.

    Acquires the lease, starts COMMAND, releases the lease as soon as that is up, and
    publishes its state. When told to stop it deregisters first. COMMAND finds whom to
    join in SERVICE_MONITOR_HOSTS, in SERVICE_MONITOR_MEMBERS all that were ever up, and
    in SERVICE_MONITOR_FIRST a 1 if it is to found the cluster.

    \b
    Example:
      service-monitor run --label=es --monitor-url=http://127.0.0.1:9200 -- es
    """
    from service_monitor.node.executable import find
    from service_monitor.node.plan import Plan
    from service_monitor.node.probe import new_probe
    from service_monitor.node.pulse import Pulse
    from service_monitor.node.runner import Runner
    from service_monitor.node.watcher import Watched

    bounds, notifier = process.bounds, new_notifier(heartbeat_file, probing.ttl)
    process.ending.also_stops = stopping.signal
    find(command[0])
    plan = Plan(
        command,
        leasing.acquire_timeout,
        start_anyway=on_lease_timeout == "start",
        stop_if_lost=None if on_lease_lost is None else on_lease_lost == "stop",
        stop_timeout=stopping.timeout,
        drain=stopping.drain,
        stop_alone=stopping.alone,
    )
    with opened(store, bounds, probing.unchecked) as opened_store:
        service = service_to_publish(
            process,
            identity,
            advertising,
            probing,
            opened_store,
            notifier,
            runs_already=False,
        )
        request = leasing.request(
            identity, service.host, stays=True, published=True, found=founding.found
        )
        probe = new_probe(probing.target, bounds)
        runner = Runner(
            opened_store,
            request,
            plan,
            Watched(
                service,
                probe,
                probing.rhythm,
                founding.watched(opened_store, service, probing, bounds),
            ),
            Pulse(probing.ttl, notifier),
            bounds,
            process.ending,
            process.timings,
        )
        return runner.run()

"""The command `run`."""

from __future__ import annotations

from typing import Any

import click

from service_monitor.cli import options
from service_monitor.cli.leasing import request_of
from service_monitor.cli.manual import REFUSED, Command
from service_monitor.cli.opening import opened
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.cli.watching import notifier_of, watching


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
@options.label
@options.service_id
@options.probing
@options.leasing
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
@options.stopping
@options.heartbeat_file
@options.store
@options.log_level
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(process: Process, /, **given: Any) -> int:
    """Start COMMAND when it is its turn, and watch it.

    Acquires the lease, starts COMMAND, releases the lease as soon as that is up, and
    publishes its state. When told to stop it deregisters first. COMMAND finds whom to
    join in SERVICE_MONITOR_HOSTS, and in SERVICE_MONITOR_FIRST a 1 if it is to found
    the cluster.

    \b
    Example:
      service-monitor run --label=es --monitor-url=http://127.0.0.1:9200 -- es
    """
    from service_monitor.node.executable import find
    from service_monitor.node.runner import Plan, Runner

    command, notifier = given["command"], notifier_of(given)
    process.ending.also_stops = given["stop_signal"]
    on_lost: str | None = given["on_lease_lost"]
    find(command[0])
    new_watcher = watching(given, process.bounds, notifier)
    new_request = request_of(given, stays=True)
    with opened(given, process.bounds) as store:
        watcher = new_watcher(store)
        plan = Plan(
            command,
            given["acquire_timeout"],
            start_anyway=given["on_lease_timeout"] == "start",
            stop_if_lost=None if on_lost is None else on_lost == "stop",
            stop_timeout=given["stop_timeout"],
            drain=given["drain"],
            stop_alone=given["stop_whom"] == "command",
        )
        request = new_request(watcher.service.host)
        runner = Runner(
            store, request, plan, watcher, process.bounds, process.ending, notifier
        )
        return runner.run()

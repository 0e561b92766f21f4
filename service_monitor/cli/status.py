"""The command `status`."""

from __future__ import annotations

import json

import click

from service_monitor.cli import options, values
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process


@click.command(cls=Command, exits={0: "printed"} | STORE_FAILED)
@option("--label", type=values.NAME_TYPE, show_default="all", help="Only this cluster.")
@option(
    "--format",
    "format_",
    variable="STATUS_FORMAT",
    formerly="FORMAT",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How to print it.",
)
@option(
    "--events",
    is_flag=True,
    help="Show the last 20 events of each service, too. JSON always has them.",
)
@store_option
@options.log_level
@click.pass_obj
def status(
    process: Process,
    /,
    label: str | None,
    format_: str,
    events: bool,
    store: StoreChoice,
) -> None:
    """Show services, lease holders and waiters.

    Services with their state and its reason, also those that were up once and are gone;
    who holds a lease or waits for one, with position, age and the seconds left.

    \b
    Example:
      service-monitor status --label=es
      service-monitor status --label=es --events
    """
    from service_monitor.recipes.status import gather, render

    with opened(store, process.bounds) as opened_store:
        found = gather(opened_store, label)
    if format_ == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(render(found, events=events))

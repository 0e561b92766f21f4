"""The command `hosts`."""

from __future__ import annotations

import json

import click

from service_monitor.cli import options, values
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process


@click.command(
    cls=Command,
    exits={0: "printed", 1: "--wait: too few hosts within --timeout"} | STORE_FAILED,
)
@options.label
@option(
    "--state",
    variable="HOSTS_STATE",
    type=click.Choice(["up", "down", "gone", "any"]),
    default="up",
    help="Print the hosts of members in this state. Gone: it was up once, and is not "
    "registered now.",
)
@option(
    "--wait",
    type=values.COUNT,
    is_flag=False,
    flag_value=1,
    metavar="[N]",
    help="Wait until N hosts are up, or in --state (1 if N is left out).",
)
@option(
    "--timeout",
    variable="WAIT_TIMEOUT",
    formerly="TIMEOUT",
    type=values.DURATION,
    default="360s",
    help="How long --wait waits.",
)
@option(
    "--port",
    type=values.PORT,
    help="Print hosts that registered no port as HOST:PORT.",
)
@option(
    "--format",
    "format_",
    variable="HOSTS_FORMAT",
    formerly="FORMAT",
    type=click.Choice(["comma", "lines", "json"]),
    default="comma",
    help="How to print them.",
)
@options.host("Accepted from units of the 2014 tool; changes nothing.")
@store_option
@options.log_level
@click.pass_obj
def hosts(
    process: Process,
    /,
    label: str,
    state: str,
    wait: int | None,
    timeout: float,
    port: int | None,
    format_: str,
    host: str | None,
    store: StoreChoice,
) -> None:
    """Print the hosts that are up: whom to join.

    Each once, naturally sorted; as HOST:PORT where a port is registered. No host is an
    empty line and exit 0: this node is the first. A store that does not answer is exit
    69 and prints nothing.

    \b
    Example:
      service-monitor hosts --label=es --port=9300
      10.0.0.1:9300,10.0.0.2:9300
      service-monitor hosts --label=es --state=gone
      10.0.0.3
    """
    from service_monitor.recipes.discovery import search_up, wait_for_hosts
    from service_monitor.recipes.members import STATES, search_in

    if state == "up":
        search = search_up(label, port)
    else:
        search = search_in(STATES if state == "any" else [state], label, port)
    with opened(store, process.bounds) as opened_store:
        if wait:
            listed = wait_for_hosts(
                opened_store,
                label,
                wait,
                timeout,
                process.bounds,
                timings=process.timings,
                search=search,
            )
        else:
            listed = search.find(opened_store.list(search.prefix).records, set())
    if format_ == "json":
        click.echo(json.dumps(listed))
    else:
        click.echo(("\n" if format_ == "lines" else ",").join(listed))

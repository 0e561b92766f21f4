"""The options of the commands, each declared once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from service_monitor.cli import values
from service_monitor.cli.twins import PREFIX, Twin, warn_of_unknown
from service_monitor.text import printable

F = TypeVar("F", bound=Callable[..., Any])


def option(
    *names: str, variable: str | None = None, **settings: Any
) -> Callable[[F], F]:
    """Declare an option with its environment twin.

    That has the option's name after our prefix, or `variable` where another option has
    that name with another meaning.
    """
    word = variable or names[0].removeprefix("--").replace("-", "_").upper()
    settings.setdefault("cls", Twin)
    settings.setdefault("show_default", settings.get("default") is not None)
    return click.option(*names, envvar=PREFIX + word, **settings)


def group(*declared: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several; --help lists them in this order."""

    def declare(command: F) -> F:
        for each in reversed(declared):
            command = each(command)
        return command

    return declare


class _OneLine(logging.Formatter):
    """What a server or another node wrote must not pass for lines of our log."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def start_logging(ctx: click.Context, param: click.Parameter, level: str) -> None:
    """Log to stderr what is ours.

    What libraries log holds secrets at debug and tracebacks at warning; what of it
    concerns the operator, we say.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(logging.Filter("service_monitor"))
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("service_monitor").setLevel(level.upper())
    if not ctx.resilient_parsing:
        warn_of_unknown(ctx, os.environ)


def host(text: str, **settings: Any) -> Callable[[F], F]:
    """Declare --host with its name of 2014; what it means is up to the command."""
    return option(
        "--host", "--host-ip", "host", type=values.HOST_TYPE, help=text, **settings
    )


label = option(
    "--label", required=True, type=values.NAME_TYPE, help="The cluster's name."
)
service_id = option(
    "--service-id",
    type=values.NAME_TYPE,
    show_default="the host name",
    help="This node's name, its own in the label.",
)
store = option(
    "--store",
    type=values.STORE_TYPE,
    show_default="see below",
    help="Where the records are.",
)
heartbeat_file = option(
    "--heartbeat-file",
    type=values.HEARTBEAT_TYPE,
    help="Set this file's time to when the next sign of life is due, for a health "
    "check.",
)
log_level = option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    callback=start_logging,
    is_eager=True,
    expose_value=False,
    help="Log this and worse to stderr.",
)
probing = group(
    option(
        "--monitor-url",
        variable="URL",
        also="MONITOR_URL",
        required=True,
        type=values.URL_TYPE,
        help="What to probe: http(s)://[USER:PASSWORD@]HOST[:PORT]/PATH is up on a "
        "2xx, tcp://HOST:PORT if it accepts connections and keeps them.",
    ),
    option(
        "--interval",
        type=values.DURATION,
        default="5s",
        help="From probe to probe; 250 ms while this service holds the startup lease, "
        "1 s with tcp:// once it connects.",
    ),
    option(
        "--timeout",
        variable="PROBE_TIMEOUT",
        formerly="TIMEOUT",
        type=values.DURATION,
        show_default="3s, or --interval if that is less",
        help="For one probe, everything included.",
    ),
    option("--rise", type=values.COUNT, default=1, help="Successes in a row to be up."),
    option(
        "--fall", type=values.COUNT, default=2, help="Failures in a row to be down."
    ),
    option(
        "--ttl",
        type=values.DURATION,
        show_default="15s, or --interval plus --timeout if that is more",
        help="How long its record outlives a killed watch.",
    ),
    host(
        "The host to tell others.",
        show_default="the monitor URL's, or if others cannot use it the address that "
        "reaches the store",
    ),
    option(
        "--advertise-port",
        type=values.PORT,
        help="The port to tell others beside the host; so several nodes may be on one "
        "host.",
    ),
    option(
        "--info",
        "--service-info",
        "info",
        type=values.INFO_TYPE,
        multiple=True,
        help="KEY=VALUE, or a JSON object, to publish beside the state. May be "
        "repeated; its variable takes a line for each.",
    ),
    option(
        "--header",
        type=values.HEADER_TYPE,
        multiple=True,
        help="'Name: value' to send with each probe. May be repeated; its variable "
        "takes a line for each.",
    ),
    option(
        "--ca",
        type=values.CA_TYPE,
        help="Check an https service's certificate against this PEM bundle.",
    ),
    option(
        "--insecure", is_flag=True, help="Do not check an https service's certificate."
    ),
)
leasing = group(
    option(
        "--lease-timeout",
        type=values.DURATION,
        default="240s",
        help="How long the service may take to be up; then the next node may start.",
    ),
    option(
        "--acquire-timeout",
        type=values.DURATION,
        default="360s",
        help="How long to wait for the turn.",
    ),
    option(
        "--slots",
        type=values.COUNT,
        default=1,
        help="How many nodes may start at a time. Where nodes differ, the smallest "
        "counts.",
    ),
)
stopping = group(
    option(
        "--stop-timeout",
        type=values.DURATION,
        default="10s",
        help="How long COMMAND may take to stop, then SIGKILL.",
    ),
    option(
        "--stop-whom",
        type=click.Choice(["group", "command"]),
        default="group",
        help="Whom the stop goes to: COMMAND with all that it started, or it alone.",
    ),
    option(
        "--stop-signal",
        type=values.SIGNAL,
        help="Stop at this one too, though it is COMMAND's own while that runs: USR1, "
        "WINCH ...",
    ),
    option(
        "--drain",
        type=values.DURATION_OR_0,
        default="0s",
        help="How long COMMAND goes on after it is deregistered and before it is "
        "stopped.",
    ),
)

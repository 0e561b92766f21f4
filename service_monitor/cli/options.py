"""How an option is declared, and a group of them becomes one frozen value."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

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


def gathered(
    name: str, make: Callable[..., object], *declared: Callable[[F], F]
) -> Callable[[F], F]:
    """Declare options that a command is given as one value, called `name`.

    `make` gets each under its parameter's name, and may raise `ConfigError` for what
    does not go together. --help lists them in this order.
    """
    names = _parameters(declared)

    def declare(command: F) -> F:
        @wraps(command)
        def gather(*args: object, **given: object) -> object:
            parts = {each: given.pop(each) for each in names}
            return command(*args, **{name: make(**parts)}, **given)

        return _declared(cast(F, gather), declared)

    return declare


def _declared(command: F, declared: Iterable[Callable[[F], F]]) -> F:
    for each in reversed(tuple(declared)):
        command = each(command)
    return command


def _parameters(declared: Iterable[Callable[[F], F]]) -> list[str]:
    """Return the names of the parameters that such options make."""

    def command() -> None: ...

    made = click.command()(_declared(cast(Any, command), declared))
    return [str(param.name) for param in made.params]


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

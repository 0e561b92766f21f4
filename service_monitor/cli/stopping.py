"""The options on how `run` ends COMMAND."""

from __future__ import annotations

from dataclasses import dataclass

import click

from service_monitor.cli import values
from service_monitor.cli.options import gathered, option


@dataclass(frozen=True)
class Stopping:
    """How COMMAND is ended; times in seconds."""

    timeout: float
    """How long it may take to stop, before it is killed."""
    alone: bool
    """Whether signals are for COMMAND only, and not for all that it started."""
    signal: int | None
    """A signal that is a stop although it is COMMAND's own while that runs."""
    drain: float
    """How long it goes on after it is deregistered and before it is stopped."""


def stopping_of(
    stop_timeout: float, stop_whom: str, stop_signal: int | None, drain: float
) -> Stopping:
    """Return how COMMAND is ended, as the options have it."""
    return Stopping(stop_timeout, stop_whom == "command", stop_signal, drain)


stopping_options = gathered(
    "stopping",
    stopping_of,
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

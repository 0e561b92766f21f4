"""The command `reset`: forget who founded a cluster, and its members."""

from __future__ import annotations

import logging

import click

from service_monitor.cli import options
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.errors import ConfigError

log = logging.getLogger(__name__)


@click.command(
    cls=Command,
    exits={
        0: "forgotten, or there was nothing",
        1: "a node of the label lives: nothing was changed",
        2: "usage or configuration, or --yes is missing; nothing was changed",
    }
    | STORE_FAILED,
)
@options.label
@option("--yes", is_flag=True, help="Do it. Without it says what would be forgotten.")
@store_option
@options.log_level
@click.pass_obj
def reset(process: Process, /, label: str, yes: bool, store: StoreChoice) -> None:
    """Forget who founded a cluster, and its members.

    The next node that starts with --found=once founds a new cluster. So empty the disks
    first, of all nodes that have data of the old one. Refused while a node lives.

    \b
    Example:
      service-monitor reset --label=es --yes
    """
    from service_monitor.recipes import reset as recipe

    with opened(store, process.bounds) as opened_store:
        if not yes:
            found = recipe.remains(opened_store, label)
            raise ConfigError(
                f"label {label}: would forget {found}; the next start with "
                "--found=once then founds a new cluster. Say --yes to do it"
            )
        forgotten = recipe.reset(opened_store, label)
    log.info("label %s: forgot %s", label, forgotten)

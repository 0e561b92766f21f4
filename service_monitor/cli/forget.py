"""The command `forget`: take a member out that will not come back."""

from __future__ import annotations

import logging

import click

from service_monitor.cli import options, values
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process

log = logging.getLogger(__name__)


@click.command(
    cls=Command,
    exits={0: "forgotten, or it was not known", 1: "it lives: nothing was removed"}
    | STORE_FAILED,
)
@options.label
@option(
    "--service-id",
    variable="FORGET_SERVICE_ID",  # a node's own name must not say whom to forget
    required=True,
    type=values.NAME_TYPE,
    help="Which member to forget.",
)
@store_option
@options.log_level
@click.pass_obj
def forget(
    process: Process, /, label: str, service_id: str, store: StoreChoice
) -> None:
    """Forget a member that will not come back.

    For a node that was decommissioned: `status` shows it no more, and nobody waits for
    it. Refused while it is registered, or holds the startup lease or waits for it. What
    another tool wrote in its place is removed, too.

    \b
    Example:
      service-monitor forget --label=es --service-id=es-3
    """
    from service_monitor.recipes.forget import forget as take_out

    with opened(store, process.bounds) as opened_store:
        done = take_out(opened_store, label, service_id)
    log.info(
        "label %s: %s %s", label, "forgot" if done else "does not know", service_id
    )

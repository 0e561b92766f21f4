"""The command `release-lease`: give a lease back by hand."""

from __future__ import annotations

import logging

import click

from service_monitor.cli import options, values
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.identity import Identity, identity_options
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process

log = logging.getLogger(__name__)


@click.command(
    cls=Command,
    exits={0: "released, or there was none", 1: "held by another acquisition"}
    | STORE_FAILED,
)
@identity_options
@option(
    "--token",
    type=values.TOKEN,
    help="Release only the acquisition with this token.",
)
@option(
    "--force",
    is_flag=True,
    help="Release it whatever its token, also a ticket that still waits.",
)
@store_option
@options.log_level
@click.pass_obj
def release_lease(
    process: Process,
    /,
    identity: Identity,
    token: int | None,
    force: bool,
    store: StoreChoice,
) -> None:
    """Give a lease back by hand.

    For a start that failed, or a service without a `watch`.

    \b
    Example:
      service-monitor release-lease --label=es --service-id=es-1
    """
    from service_monitor.recipes.release import release

    label, service_id = identity.label, identity.service_id
    with opened(store, process.bounds) as opened_store:
        done = release(opened_store, label, service_id, token, force=force)
    outcome = "released the lease of" if done else "no lease to release of"
    log.info("label %s: %s %s", label, outcome, service_id)

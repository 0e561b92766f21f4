"""The command `release-lease`."""

from __future__ import annotations

import logging
from typing import Any

import click

from service_monitor.cli import options, values
from service_monitor.cli.manual import STORE_FAILED, Command
from service_monitor.cli.opening import opened
from service_monitor.cli.options import option
from service_monitor.cli.process import Process

log = logging.getLogger(__name__)


@click.command(
    cls=Command,
    exits={0: "released, or there was none", 1: "held by another acquisition"}
    | STORE_FAILED,
)
@options.label
@options.service_id
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
@options.store
@options.log_level
@click.pass_obj
def release_lease(process: Process, /, **given: Any) -> None:
    """Give a lease back by hand.

    For a start that failed, or a service without a `watch`.

    \b
    Example:
      service-monitor release-lease --label=es --service-id=es-1
    """
    from service_monitor.recipes.lease import release

    service_id = given["service_id"] or values.own_name()
    label, token, force = given["label"], given["token"], given["force"]
    with opened(given, process.bounds) as store:
        done = release(store, label, service_id, token, force=force)
    said = "released the lease of" if done else "no lease to release of"
    log.info("label %s: %s %s", label, said, service_id)

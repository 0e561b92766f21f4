"""The command `init-store`."""

from __future__ import annotations

from typing import Any

import click

from service_monitor.cli import options
from service_monitor.cli.manual import STORE_FAILED, Command
from service_monitor.cli.opening import explained
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.stores.opening import prepare_store


@click.command(cls=Command, exits={0: "made, or nothing to make"} | STORE_FAILED)
@option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@options.store
@options.log_level
@click.pass_obj
def init_store(process: Process, /, **given: Any) -> None:
    """Make what the store needs before its first use.

    For DynamoDB that is the table. All other stores need nothing. To repeat it does no
    harm: what is there stays as it is.

    \b
    Example:
      service-monitor init-store --store='dynamodb://nodes?region=eu-central-1'
    """
    with explained(given):
        made = prepare_store(given["store"], process.bounds, dry_run=given["dry_run"])
    for line in made:
        click.echo(f"{'would make' if given['dry_run'] else 'made'} {line}")
    if not made:
        click.echo("nothing to make: this store is ready")

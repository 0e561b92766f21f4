"""The command `init-store`: make the table that DynamoDB needs."""

from __future__ import annotations

import click

from service_monitor.cli import options
from service_monitor.cli.command_help import STORE_FAILED, Command
from service_monitor.cli.opening import StoreChoice, explained, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.stores.opening import prepare_store


@click.command(cls=Command, exits={0: "made, or nothing to make"} | STORE_FAILED)
@option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@store_option
@options.log_level
@click.pass_obj
def init_store(process: Process, /, dry_run: bool, store: StoreChoice) -> None:
    """Make what the store needs before its first use.

    For DynamoDB that is the table. All other stores need nothing. To repeat it does no
    harm: what is there stays as it is.

    \b
    Example:
      service-monitor init-store --store='dynamodb://nodes?region=eu-central-1'
    """
    with explained(store):
        made = prepare_store(store.place, process.bounds, dry_run=dry_run)
    for line in made:
        click.echo(f"{'would make' if dry_run else 'made'} {line}")
    if not made:
        click.echo("nothing to make: this store is ready")

"""The command `acquire-lease`: wait for this node's turn, then exit 0."""

from __future__ import annotations

import os

import click

from service_monitor.cli import options
from service_monitor.cli.command_help import REFUSED, Command
from service_monitor.cli.identity import Identity, identity_options
from service_monitor.cli.leasing import Leasing, leasing_options
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.net.calls import STOP_GRACE
from service_monitor.node.notify import Notifier


@click.command(
    cls=Command,
    exits={
        0: "acquired",
        1: "not acquired within --acquire-timeout, or taken over by another "
        "acquire-lease of this service id",
    }
    | REFUSED,
)
@identity_options
@leasing_options
@options.host(
    "The host that others see in the queue.",
    show_default="the address that reaches the store",
)
@option(
    "--print-token",
    is_flag=True,
    help="Print the fencing token: a number that grows with each acquisition.",
)
@options.heartbeat_file
@store_option
@options.log_level
@click.pass_obj
def acquire_lease(
    process: Process,
    /,
    identity: Identity,
    leasing: Leasing,
    host: str | None,
    print_token: bool,
    heartbeat_file: str | None,
    store: StoreChoice,
) -> None:
    """Wait for this node's turn to start.

    First come, first served. The lease outlives this command: `watch` releases it when
    the service is up, else it ends after --lease-timeout. Asking again while holding it
    succeeds at once, so a restart never waits for itself.

    \b
    Example:
      service-monitor acquire-lease --label=es --service-id=es-1
    """
    from service_monitor.recipes.acquire import acquire
    from service_monitor.recipes.ticket_host import ticket_host

    notifier, bounds = Notifier(os.environ, heartbeat_file), process.bounds
    with opened(store, bounds) as opened_store:
        queue_host, known = ticket_host(host, opened_store.local_address)
        published = host is not None
        request = leasing.request(
            identity, queue_host, known=known, published=published
        )
        lease = acquire(
            opened_store,
            request,
            leasing.acquire_timeout,
            bounds,
            notifier,
            timings=process.timings,
        )
        if print_token:
            try:
                click.echo(str(lease.token))
            except OSError:  # with no exit code but 0 may anything stay behind
                with bounds.within(STOP_GRACE):
                    opened_store.delete(lease.record)
                raise

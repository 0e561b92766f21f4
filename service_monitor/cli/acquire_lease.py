"""The command `acquire-lease`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from service_monitor.cli import options
from service_monitor.cli.leasing import request_of
from service_monitor.cli.manual import REFUSED, Command
from service_monitor.cli.opening import opened
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.cli.watching import notifier_of
from service_monitor.net.calls import STOP_GRACE


@click.command(
    cls=Command,
    exits={
        0: "acquired",
        1: "not acquired within --acquire-timeout, or taken over by another "
        "acquire-lease of this service id",
    }
    | REFUSED,
)
@options.label
@options.service_id
@options.leasing
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
@options.store
@options.log_level
@click.pass_obj
def acquire_lease(process: Process, /, **given: Any) -> None:
    """Wait for this node's turn to start.

    First come, first served. The lease outlives this command: `watch` releases it when
    the service is up, else it ends after --lease-timeout. Asking again while holding it
    succeeds at once, so a restart never waits for itself.

    \b
    Example:
      service-monitor acquire-lease --label=es --service-id=es-1
    """
    from service_monitor.recipes.acquire import acquire
    from service_monitor.recipes.seen import seen_host

    new_request = request_of(given)
    with opened(given, process.bounds) as store:
        host, known = seen_host(given["host"], store.local_address)
        published = given["host"] is not None
        request = replace(new_request(host), known=known, published=published)
        notifier = notifier_of(given)
        lease = acquire(
            store, request, given["acquire_timeout"], process.bounds, notifier
        )
        if given["print_token"]:
            try:
                click.echo(str(lease.token))
            except OSError:  # with no exit code but 0 may anything stay behind
                with process.bounds.within(STOP_GRACE):
                    store.delete(lease.record)
                raise

"""The command `acquire-lease`: wait for this node's turn, then exit 0."""

from __future__ import annotations

import os
from typing import Literal

import click

from service_monitor.cli import options
from service_monitor.cli.command_help import REFUSED, Command
from service_monitor.cli.founding import found_option
from service_monitor.cli.identity import Identity, identity_options
from service_monitor.cli.leasing import Leasing, leasing_options
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.options import option
from service_monitor.cli.process import Process
from service_monitor.errors import ConfigError, ServiceMonitorError
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
@found_option
@options.host(
    "The host that others see in the queue.",
    show_default="the address that reaches the store",
)
@option(
    "--print-token",
    is_flag=True,
    help="Print the fencing token: a number that grows with each acquisition.",
)
@option(
    "--print-role",
    is_flag=True,
    help="With --found=once: print founder or joiner, after the token if that is "
    "printed, too.",
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
    found: Literal["empty", "once"],
    host: str | None,
    print_token: bool,
    print_role: bool,
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
    from service_monitor.recipes.acquire import acquire, give_back, unclaim
    from service_monitor.recipes.claim import Founding
    from service_monitor.recipes.role import is_founder
    from service_monitor.recipes.ticket_host import ticket_host

    if print_role and found != "once":
        raise ConfigError("--print-role needs --found=once: else nobody is the founder")
    notifier, bounds = Notifier(os.environ, heartbeat_file), process.bounds
    with opened(store, bounds) as opened_store:
        queue_host, known = ticket_host(host, opened_store.local_address)
        published = host is not None
        request = leasing.request(
            identity, queue_host, known=known, published=published, found=found
        )
        founding, timings = Founding(opened_store, request), process.timings
        lease = acquire(
            opened_store,
            request,
            leasing.acquire_timeout,
            bounds,
            notifier,
            timings=timings,
            founding=founding,
        )
        words = [str(lease.token)] if print_token else []
        try:
            if found == "once":
                founds = is_founder(
                    opened_store,
                    request,
                    lease,
                    founding,
                    bounds.stop,
                    notifier,
                    timings,
                )
                words += ["founder" if founds else "joiner"] if print_role else []
            if words:
                click.echo(" ".join(words))
        except (OSError, ServiceMonitorError):
            # With no exit code but 0 may anything stay behind.
            unclaim(founding, bounds)
            give_back(opened_store, request, lease, bounds)
            raise

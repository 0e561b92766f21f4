"""The command `watch`: probe a service, publish its state, release its lease."""

from __future__ import annotations

import logging
from contextlib import suppress

import click

from service_monitor.cli import options
from service_monitor.cli.advertising import Advertising, advertising_options
from service_monitor.cli.command_help import Command
from service_monitor.cli.founding import FoundingChoice, founding_options
from service_monitor.cli.identity import Identity, identity_options
from service_monitor.cli.opening import StoreChoice, opened, store_option
from service_monitor.cli.probing import Probing, probing_options
from service_monitor.cli.process import Process
from service_monitor.cli.watching import new_notifier, service_to_publish
from service_monitor.errors import Stopped

log = logging.getLogger(__name__)


@click.command(cls=Command, exits={0: "ended by a signal"}, signalled={})
@identity_options
@probing_options
@advertising_options
@founding_options
@options.heartbeat_file
@store_option
@options.log_level
@click.pass_obj
def watch(
    process: Process,
    /,
    identity: Identity,
    probing: Probing,
    advertising: Advertising,
    founding: FoundingChoice,
    heartbeat_file: str | None,
    store: StoreChoice,
) -> None:
    """Probe a service, publish its state, pass the turn on.

    Up means 2xx. A service that is up is listed by `hosts`; the startup lease of this
    service id is released as soon as it is up. Runs until SIGTERM, SIGINT or SIGHUP,
    then deregisters at once.

    \b
    Example:
      service-monitor watch --label=es --monitor-url=http://127.0.0.1:9200
    """
    from service_monitor.node.hints import with_hint
    from service_monitor.node.probe import new_probe
    from service_monitor.node.pulse import Pulse
    from service_monitor.node.startup_lease import AnyOfOurs
    from service_monitor.node.watcher import Watched, Watcher

    bounds, notifier = process.bounds, new_notifier(heartbeat_file, probing.ttl)
    with suppress(Stopped), opened(store, bounds, probing.unchecked) as opened_store:
        service = service_to_publish(
            process,
            identity,
            advertising,
            probing,
            opened_store,
            notifier,
            runs_already=True,
        )
        probe = with_hint(new_probe(probing.target, bounds), probing.url.host)
        watcher = Watcher(
            opened_store,
            Watched(
                service,
                probe,
                probing.rhythm,
                founding.watched(opened_store, service, probing, bounds),
            ),
            AnyOfOurs(),
            Pulse(probing.ttl, notifier),
            bounds,
            process.timings,
        )
        watcher.run()
        if watcher.lease.seen:
            log.warning(
                "stopped before the service was up: its startup lease stays until it "
                "expires. To let the next node start now: release-lease"
            )

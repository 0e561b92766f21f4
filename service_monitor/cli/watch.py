"""The command `watch`."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import click

from service_monitor.cli import options
from service_monitor.cli.manual import Command
from service_monitor.cli.opening import opened
from service_monitor.cli.process import Process
from service_monitor.cli.watching import notifier_of, watching
from service_monitor.errors import Stopped

log = logging.getLogger(__name__)


@click.command(cls=Command, exits={0: "ended by a signal"}, signalled={})
@options.label
@options.service_id
@options.probing
@options.heartbeat_file
@options.store
@options.log_level
@click.pass_obj
def watch(process: Process, /, **given: Any) -> None:
    """Probe a service, publish its state, pass the turn on.

    Up means 2xx. A service that is up is listed by `hosts`; the startup lease of this
    service id is released as soon as it is up. Runs until SIGTERM, SIGINT or SIGHUP,
    then deregisters at once.

    \b
    Example:
      service-monitor watch --label=es --monitor-url=http://127.0.0.1:9200
    """
    notifier = notifier_of(given)
    new_watcher = watching(given, process.bounds, notifier, apart=True)
    with suppress(Stopped), opened(given, process.bounds) as store:
        watcher = new_watcher(store)
        watcher.run()
        if watcher.holds:
            log.warning(
                "stopped before the service was up: its startup lease stays until it "
                "expires. To let the next node start now: release-lease"
            )

"""What `watch` and `run` build from their options: notifier, published service."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from service_monitor.cli.advertising import Advertising
from service_monitor.cli.identity import Identity
from service_monitor.cli.probing import Probing
from service_monitor.cli.process import Process
from service_monitor.errors import ConfigError
from service_monitor.node.notify import Notifier
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration

if TYPE_CHECKING:
    from service_monitor.recipes.publisher import Service

log = logging.getLogger(__name__)


def new_notifier(heartbeat_file: str | None, ttl: float) -> Notifier:
    """Return what reports to systemd and to the heartbeat file.

    Raises `ConfigError` where systemd would kill a watch that publishes with this ttl
    while it only waits for a store.
    """
    from service_monitor.node.pulse import STEP

    notifier = Notifier(os.environ, heartbeat_file)
    step = max(ttl, STEP)
    if notifier.watchdog is not None and notifier.watchdog < step:
        raise ConfigError(
            f"WatchdogSec of the unit is {format_duration(notifier.watchdog)}, and a "
            f"step may take {format_duration(step)}: make it that or more"
        )
    return notifier


def service_to_publish(
    process: Process,
    identity: Identity,
    advertising: Advertising,
    probing: Probing,
    store: Store,
    notifier: Notifier,
    *,
    runs_already: bool,
) -> Service:
    """Return what is published of the service, once its host is known.

    Blocks until the network can tell the host, where no option does. Where the service
    `runs_already` it waits also for a store that refuses us. Raises `StoreRefused`
    otherwise, `ConfigError` and `Stopped`.
    """
    from service_monitor.net.addresses import with_port
    from service_monitor.node.advertise import host_to_publish
    from service_monitor.recipes.publisher import Service

    label, service_id, url = identity.label, identity.service_id, probing.url
    host = host_to_publish(
        advertising.host,
        url.host,
        store,
        process.stop,
        notifier,
        runs_already=runs_already,
        timings=process.timings,
    )
    place = with_port(host, advertising.port)
    log.info("label %s: watching %s at %s as host %s", label, service_id, url, place)
    info = dict(advertising.info)
    return Service(label, service_id, host, probing.ttl, info, advertising.port)

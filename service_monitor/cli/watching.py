"""What `watch` and `run` have in common: what to watch, and how often to probe it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service_monitor.cli import values
from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.node.notify import Notifier
from service_monitor.stores.base import Store
from service_monitor.timing import format_duration

if TYPE_CHECKING:
    from service_monitor.node.monitored import MonitoredURL
    from service_monitor.node.watcher import Watcher

log = logging.getLogger(__name__)


def notifier_of(given: dict[str, Any]) -> Notifier:
    """Return what reports to systemd and to the heartbeat file."""
    return Notifier(os.environ, given["heartbeat_file"])


def watching(
    given: dict[str, Any], bounds: Bounds, notifier: Notifier, *, apart: bool = False
) -> Callable[[Store], Watcher]:
    """Check what there is to watch; return what watches it once the store is open.

    `apart` is a service that somebody else starts, maybe in another container.
    """
    from service_monitor.net.addresses import with_port
    from service_monitor.node.hints import with_hint
    from service_monitor.node.place import host_to_publish
    from service_monitor.node.probe import Target, new_probe
    from service_monitor.node.tcp import CONNECTED_INTERVAL
    from service_monitor.node.watcher import STARTUP_INTERVAL, STEP, Rhythm, Watcher
    from service_monitor.recipes.registry import Service

    interval, timeout, ttl = checked_rhythm(**given)
    if notifier.watchdog is not None and notifier.watchdog < max(ttl, STEP):
        raise ConfigError(
            f"WatchdogSec of the unit is {format_duration(notifier.watchdog)}, and a "
            f"step may take {format_duration(max(ttl, STEP))}: make it that or more"
        )
    url: MonitoredURL = given["monitor_url"]
    ca, insecure = given["ca"], given["insecure"]
    if ca and insecure:
        raise ConfigError("--ca and --insecure contradict each other")
    target = Target(url, timeout, dict(given["header"]), ca, insecure)
    label, service_id = given["label"], given["service_id"] or values.own_name()
    info = {key: value for part in given["info"] for key, value in part.items()}
    connected = CONNECTED_INTERVAL if url.scheme == "tcp" else STARTUP_INTERVAL
    rhythm = Rhythm(interval, given["rise"], given["fall"], connected)

    def watcher(store: Store) -> Watcher:
        host = host_to_publish(
            given["host"], url.host, store, bounds.stop, notifier, beside=apart
        )
        port = given["advertise_port"]
        place = with_port(host, port)
        log.info(
            "label %s: watching %s at %s as host %s", label, service_id, url, place
        )
        service = Service(label, service_id, host, ttl, info, port)
        probe = new_probe(target, bounds)
        if apart:
            probe = with_hint(probe, url.host)
        return Watcher(store, service, rhythm, probe, bounds, notifier)

    return watcher


def checked_rhythm(
    interval: float, timeout: float | None, ttl: float | None, **_: Any
) -> tuple[float, float, float]:
    """Fill in the defaults, and refuse what cannot be kept."""
    timeout = timeout or min(3.0, interval)
    if timeout > interval:
        raise ConfigError(
            f"--timeout {format_duration(timeout)} is longer than --interval "
            f"{format_duration(interval)}: probes would overlap; lower --timeout"
        )
    least = max(3.0, interval + timeout)
    ttl = ttl or max(15.0, least)
    if ttl < least:
        raise ConfigError(
            f"--ttl {format_duration(ttl)} is too short to be kept: raise it to "
            f"{format_duration(least)}, --interval plus --timeout and 3 s at the least"
        )
    return interval, timeout, ttl

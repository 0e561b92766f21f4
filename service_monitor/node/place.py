"""Wait until the network can tell which host to publish, then have it chosen."""

from __future__ import annotations

import logging

from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.net.stop import Stop
from service_monitor.node.advertise import advertised_host
from service_monitor.node.notify import Notifier
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, failure_text
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)


def host_to_publish(
    given: str | None,
    monitored: str,
    store: Store,
    stop: Stop,
    notifier: Notifier,
    *,
    beside: bool,
    timings: Timings = TIMINGS,
) -> str:
    """Return the host given, else the monitored one, else the one that reaches the
    store.

    It blocks as long as the last one is needed and cannot be found out, and tells the
    notifier why. `beside` a service that runs already it waits also while the store
    refuses us. Raises `StoreRefused` otherwise, `ConfigError` and `Stopped`.
    """
    logged: type[Exception] | None = None
    while True:
        try:
            return advertised_host(given, monitored, store.local_address)
        except FAILURES as error:
            refused = isinstance(error, StoreRefused)
            if refused and not beside:
                raise
            if type(error) is not logged and refused:
                log.error("the store refuses us: %s; trying again", error)
            elif type(error) is not logged:
                log.warning("%s; trying again", error)
            logged = type(error)
            away = isinstance(error, StoreUnavailable)
            notifier.queued(
                f"waiting for a route: {error}" if away else failure_text(error)
            )
            stop.wait(timings.store_retry)
            stop.check()

"""Choose the host to publish, and wait until the network can tell it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from service_monitor.errors import ConfigError, StoreUnavailable
from service_monitor.net.here import Here, look
from service_monitor.net.meaning import behind, why_ambiguous
from service_monitor.net.stop import Stop
from service_monitor.node.notify import Notifier
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.recipes.trouble import FAILURES, Trouble, failure_text
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)


def host_to_publish(
    given: str | None,
    monitored: str,
    store: Store,
    stop: Stop,
    notifier: Notifier,
    *,
    runs_already: bool,
    timings: Timings = TIMINGS,
) -> str:
    """Return what `advertised_host` does, as soon as that can be found out.

    Blocks until then, and tells the notifier why. Where the service `runs_already` it
    waits also while the store refuses us. Raises `StoreRefused` otherwise,
    `ConfigError` and `Stopped`.
    """
    trouble = Trouble("trying again", timings, refusal_ends=not runs_already)
    while True:
        try:
            return advertised_host(given, monitored, store.local_address)
        except FAILURES as error:
            trouble.met(error)
            no_route = isinstance(error, StoreUnavailable)
            notifier.queued(
                f"waiting for a route: {error}" if no_route else failure_text(error)
            )
            stop.wait(trouble.pause())
            stop.check()


def advertised_host(
    given: str | None,
    monitored: str | None,
    local_address: Callable[[], str],
    here: Here | None = None,
) -> str:
    """Return the host given, the monitored one, or the one that reaches the store.

    A monitored host that is another machine on each machine, as loopback is, is of no
    use to others and counts as none. `local_address` may block as long as one call to
    the store, and is called only where its answer is needed. Raises what it raises, and
    `ConfigError` where the address has a zone.
    """
    here = look() if here is None else here
    if given:
        if why := why_ambiguous(given, here):
            log.warning(
                "--host %s (%s) is another machine on each machine: who is told to "
                "join it reaches itself, or nobody",
                given,
                why,
            )
        return given
    why = why_ambiguous(monitored or "", here)
    if monitored and not why:
        return _checked(monitored, here)
    address = local_address()
    if "%" in address:
        raise ConfigError(
            f"the address that reaches the store, {address}, has a zone, which is "
            "this machine's own: name this host with --host"
        )
    if why and why != "loopback":
        log.warning(
            "--monitor-url names %s (%s), which is another machine on each machine: "
            "others are told %s. If that is wrong, name this host with --host",
            monitored,
            why,
            address,
        )
    return address if why_ambiguous(address, here) else _checked(address, here)


def _checked(host: str, here: Here) -> str:
    """Warn of a host that no other machine may reach; here it is right."""
    if bridge := behind(host, here):
        log.warning(
            "others are told %s, which is behind %s of this machine: other machines "
            "do not reach it. If there are any, name this host with --host",
            host,
            bridge,
        )
    return host

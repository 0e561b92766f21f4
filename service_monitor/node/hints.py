"""Hints at what an operator most likely did not mean: each is logged once."""

from __future__ import annotations

import logging

from service_monitor.net.addresses import is_only_here
from service_monitor.net.here import is_container
from service_monitor.node.probe import Probe, Result

log = logging.getLogger(__name__)


def with_hint(probe: Probe, host: str, *, contained: bool | None = None) -> Probe:
    """Make a `watch` say what loopback is in a container, if its first probe is
    refused.

    There the service is in another container as a rule, and never answers. `host` is
    the one that is probed. Where `contained` is None it is found out.
    """
    if contained is None:
        contained = is_container()
    if not contained or is_only_here(host) != "loopback":
        return probe
    first = True

    def hinting() -> Result:
        nonlocal first
        result = probe()
        if first and not result.ok and "refused" in result.reason:
            log.info(
                "%s is refused: inside a container it is the container itself. If the "
                "service is in another one, share its network with --network "
                "container:NAME, or name the service in --monitor-url",
                host,
            )
        first = False
        return result

    return hinting

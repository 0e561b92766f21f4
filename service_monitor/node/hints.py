"""Log once what an operator most likely did not mean."""

from __future__ import annotations

import logging

from service_monitor.net.addresses import is_only_here
from service_monitor.net.here import is_container
from service_monitor.node.probe import Probe, Result

log = logging.getLogger(__name__)


def with_hint(probe: Probe, host: str, *, contained: bool | None = None) -> Probe:
    """Return a probe that says what loopback is in a container, if it is refused at
    first.

    There the service is in another container as a rule, and never answers. `host` is
    the one that is probed. Where `contained` is None it is found out.
    """
    if contained is None:
        contained = is_container()
    if not contained or is_only_here(host) != "loopback":
        return probe
    return _Hinting(probe, host)


class _Hinting:
    """A probe whose first result may be worth a word to the operator."""

    def __init__(self, probe: Probe, host: str) -> None:
        self._probe = probe
        self._host = host
        self._first = True

    def __call__(self) -> Result:
        result = self._probe()
        if self._first and not result.ok and "refused" in result.reason:
            log.info(
                "%s is refused: inside a container it is the container itself. If the "
                "service is in another one, share its network with --network "
                "container:NAME, or name the service in --monitor-url",
                self._host,
            )
        self._first = False
        return result

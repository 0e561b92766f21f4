"""Several addresses of one store: one after the other until one of them answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from service_monitor.errors import StoreRefused, StoreUnavailable, describe
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.here import look
from service_monitor.net.meaning import why_ambiguous
from service_monitor.net.route import local_address
from service_monitor.stores.endpoint import Endpoint
from service_monitor.timing import now

R = TypeVar("R")

log = logging.getLogger(__name__)


class RefusedHere(StoreRefused):
    """One endpoint will not serve us; another one may. Its text names no endpoint."""


class Failover:
    """Go from endpoint to endpoint until one answers; the last good one comes first."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._good = 0

    @property
    def current(self) -> Endpoint:
        """Return the endpoint that answered last."""
        return self._endpoints[self._good]

    def call(self, function: Callable[[Endpoint, float], R], seconds: float) -> R:
        """Call with an endpoint and its share of the seconds.

        Each has an equal share of what is left, so that a black hole cannot eat up the
        others' time. Raises `StoreUnavailable` naming what each one said, or, if every
        one of them said `RefusedHere`, `StoreRefused`; any other refusal at once.
        """
        deadline, first, count = now() + seconds, self._good, len(self._endpoints)
        failures, refused = [], 0
        for tried in range(count):
            index = (first + tried) % count
            share = (deadline - now()) / (count - tried)
            if share <= 0:
                break
            try:
                result = function(self._endpoints[index], share)
            except (StoreUnavailable, RefusedHere) as error:
                refused += isinstance(error, RefusedHere)
                failures.append(f"{self._endpoints[index]}: {error}")
                self._good = (index + 1) % count
            else:
                self._good = index
                return result
        if refused == count:
            raise StoreRefused("; ".join(failures))
        raise StoreUnavailable("; ".join(failures) or "no answer in time")

    def local_address(self, seconds: float, bounds: Bounds) -> str:
        """Return the address that this machine would reach the store from.

        Blocks in the resolver, up to so many seconds; each endpoint has its share.
        Raises `StoreUnavailable`, `LocalLack`, and `Stopped` as soon as that is
        requested.
        """

        def ask(endpoint: Endpoint, share: float) -> str:
            try:
                return bounded(
                    lambda: local_address(endpoint.host, endpoint.port, share),
                    share,
                    bounds,
                    waits=True,
                )
            except OSError as error:
                raise StoreUnavailable(describe(error)) from None

        try:
            address = self.call(ask, seconds)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"cannot tell which local address reaches the store ({error}): name "
                "this host with --host"
            ) from None
        if why_ambiguous(address, look()):
            log.warning(
                "the store is on this machine (%s): other machines would be told "
                "to connect to %s. If there are any, name this host with --host",
                self.current,
                address,
            )
        return address

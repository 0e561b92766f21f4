"""What `acquire-lease` and `run` have in common: which lease is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from service_monitor.cli import values
from service_monitor.errors import ConfigError

if TYPE_CHECKING:
    from service_monitor.recipes.lease import Request


def request_of(
    given: dict[str, Any], *, stays: bool = False
) -> Callable[[str], Request]:
    """Check what is asked for; return what makes it once the host is known."""
    from service_monitor.recipes.lease import Request

    if given["lease_timeout"] < 1:
        raise ConfigError("--lease-timeout is too short: no service is up within 1 s")
    service_id = given["service_id"] or values.own_name()

    def request(host: str) -> Request:
        timeout, slots = given["lease_timeout"], given["slots"]
        return Request(
            given["label"], service_id, host, timeout, slots, stays, published=stays
        )

    return request

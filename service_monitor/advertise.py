"""Which host to tell the others."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from service_monitor.addresses import is_only_here


def advertised_host(
    given: str | None, monitor_url: str | None, local_address: Callable[[], str]
) -> str:
    """Return the host given, the monitor URL's, or the one that reaches the store.

    A loopback or unspecified address in the URL means "this machine" and is of no use
    to others, so it counts as none.
    """
    if given:
        return given
    host = urlsplit(monitor_url).hostname if monitor_url else None
    return host if host and not is_only_here(host) else local_address()

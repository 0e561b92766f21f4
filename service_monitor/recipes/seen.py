"""Which host a ticket names where no option says it, and whether that can be relied on.

Nobody connects to it. But it tells one machine from another, where two were given one
service id.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from service_monitor.errors import LocalLack, StoreUnavailable
from service_monitor.net.addresses import is_only_here
from service_monitor.net.here import is_container


def seen_host(
    given: str | None, local_address: Callable[[], str], root: Path = Path("/")
) -> tuple[str, bool]:
    """Return the host given, or the address that reaches the store, or the host name.

    And whether it is this machine's alone, and the same at each start: the address of a
    container is another one in the next, and loopback is everywhere.
    """
    if given:
        return given, True
    try:
        address = local_address().partition("%")[0]  # a zone is this machine's own
    except (StoreUnavailable, LocalLack):
        return socket.gethostname(), False
    return address, not is_container(root) and not is_only_here(address)

"""Choose the host that a ticket names where no option says it.

Nobody connects to that host. It is for telling two machines apart that were given one
service id.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from service_monitor.errors import LocalLack, StoreUnavailable
from service_monitor.net.addresses import is_only_here
from service_monitor.net.here import is_container


def ticket_host(
    given: str | None, local_address: Callable[[], str], root: Path = Path("/")
) -> tuple[str, bool]:
    """Return the host given, else the address used for the store, else the host name.

    The second value tells whether no other machine has this host and this machine has
    it at each start. A container gets another address at its next start, and loopback
    is the same everywhere. `local_address` may block for as long as a store's call.
    """
    if given:
        return given, True
    try:
        address = local_address().partition("%")[0]  # a zone is this machine's own
    except (StoreUnavailable, LocalLack):
        return socket.gethostname(), False
    return address, not is_container(root) and not is_only_here(address)

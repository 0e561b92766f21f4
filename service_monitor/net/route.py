"""Find the address that this machine uses to reach another one."""

from __future__ import annotations

import errno
import os
import socket

from service_monitor.net.addresses import is_only_here
from service_monitor.net.connect import connect
from service_monitor.net.resolve import resolve


def local_address(host: str, port: int, seconds: float) -> str:
    """Return the address of this machine that the host is reached from.

    Nothing is sent where the routes alone tell: connecting a UDP socket looks one up.
    If they lead out by several addresses, only a connection tells which of them works;
    but of those that mean nothing elsewhere any will do.

    Blocks as `connect` does, and raises the same.
    """
    found: dict[str, None] = {}
    error: OSError | None = None
    for place in resolve(host, port):
        try:
            with socket.socket(place.family, socket.SOCK_DGRAM) as sock:
                sock.connect(place.address)
                found[str(sock.getsockname()[0])] = None
        except OSError as no_route:
            error = error or no_route
    if len(found) == 1 or (found and all(map(is_only_here, found))):
        return next(iter(found))
    if not found:
        raise error or OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    with connect(host, port, seconds) as sock:
        return str(sock.getsockname()[0])

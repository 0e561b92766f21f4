"""The zone of an IPv6 address, carried past the HTTP libraries.

They take the beginning of a zone such as cali9, or a number, for a percent-escape, each
release in a way of its own. So they are given a name that stands for the address with
its zone, and the connection takes it apart again.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import urlsplit, urlunsplit

_STANDIN = ".zone.invalid"


def carried(host: str) -> str:
    """Return a name that stands for `[address%zone]`, any other host as it is."""
    address, percent, zone = host.strip("[]").partition("%")
    if not percent:
        return host
    packed = ipaddress.IPv6Address(address).packed
    return f"{packed.hex()}.{zone.encode().hex()}{_STANDIN}"


def carry_zone(url: str) -> str:
    """Return a URL, which has no credentials, with such a name for its host."""
    parts = urlsplit(url)
    host, bracket, port = parts.netloc.rpartition("]")
    if not bracket:
        return url
    host = carried(host.replace("%25", "%", 1) + bracket)
    return urlunsplit(parts._replace(netloc=host + port))


def restored(host: str) -> str:
    """Return the `address%zone` that a name stands for, any other host as it is."""
    if not host.endswith(_STANDIN):
        return host
    address, zone = map(bytes.fromhex, host.removesuffix(_STANDIN).split("."))
    return f"{ipaddress.IPv6Address(address)}%{zone.decode()}"


def with_index(host: str) -> str:
    """Write the zone as a number, which the resolver takes for any address.

    Raises OSError, which names it, if there is no such interface.
    """
    address, percent, zone = host.partition("%")
    if not percent:
        return host
    names = {name: index for index, name in socket.if_nameindex()}
    if zone in names:
        return f"{address}%{names[zone]}"
    if zone.isdecimal():
        return host
    raise OSError(errno.ENODEV, f"there is no interface {zone} here")

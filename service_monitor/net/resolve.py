"""The addresses that a name means, in the order in which they are to be tried."""

from __future__ import annotations

import socket
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from service_monitor.net.addresses import with_port
from service_monitor.net.zones import with_index


class Place(NamedTuple):
    """One address of a name, with the port."""

    family: socket.AddressFamily
    address: tuple[Any, ...]

    def __str__(self) -> str:
        return with_port(str(self.address[0]), self.address[1])


def resolve(host: str, port: int) -> list[Place]:
    """Return the addresses in the system's order, IPv6 and IPv4 in turn.

    Blocks as long as the system's resolver likes. Raises gaierror, and the OSError of
    an interface that is not here.
    """
    host = with_index(host.strip("[]"))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from None
    families: dict[int, dict[Place, None]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, {})[Place(family, address)] = None
    rounds = zip_longest(*families.values())
    return [place for place in chain.from_iterable(rounds) if place]

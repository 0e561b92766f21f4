"""An address that takes no connection and says nothing, as a dead IPv6 route does."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

Place = tuple[str, int]


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def black_hole(server: socket.socket) -> Iterator[Place]:
    """Fill the queue of a socket that is bound on loopback: it drops all that comes."""
    with ExitStack() as stack:
        server.listen(0)
        place: Place = server.getsockname()[:2]
        for _ in range(20):
            client = stack.enter_context(socket.socket(server.family))
            client.setblocking(False)
            client.connect_ex(place)
            time.sleep(0.1)
            try:
                client.getpeername()
            except OSError:  # still under way: it is full
                break
        else:
            pytest.fail("the queue of a listener does not get full on this machine")
        yield place


def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
    """Let these names have these addresses; `_` stands for the dot in a name."""
    real = socket.getaddrinfo
    known = {name.replace("_", "."): found for name, found in names.items()}

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host not in known:
            return real(host, port, *rest, **more)
        return [
            answer
            for address in known[host]
            for answer in real(address, port, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

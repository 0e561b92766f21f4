"""Probe a service once, with what the tests of probes share."""

from __future__ import annotations

import socket

from integration.support.commands import HANG
from integration.support.loopback import Talk, read_request, status
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Result, Target, new_probe

OK = status("200 OK")
Header = dict[str, str]


def ask(url: str, timeout: float = HANG, **how: object) -> Result:
    """Probe once."""
    return new_probe(Target(read_monitored_url(url), timeout, **how), Bounds())()  # type: ignore[arg-type]


def headers_of(request: bytes) -> Header:
    lines = request.decode("latin-1").split("\r\n")[1:-2]
    return dict(line.split(": ", 1) for line in lines)


def flooding(start: bytes, sent: list[int], *, reads: bool = True) -> Talk:
    """Answer without end, and keep count."""

    def talk(connection: socket.socket) -> None:
        if reads:
            read_request(connection)
        connection.sendall(start)
        while True:
            sent.append(connection.send(b"x" * 65536))

    return talk

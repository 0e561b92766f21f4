"""Choose a port for a server that is stopped and started again."""

from __future__ import annotations

import contextlib
import os
import random
import socket

_LOWEST, _SHARE, _SHARES = 20000, 1500, 8
_given: set[int] = set()


def worker() -> int:
    """Tell which of the processes that share the tests this is, from 0 up."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port() -> int:
    """Choose a free port that nothing else can take while a server is down.

    The kernel hands out ephemeral ports from 32768 up; a client that tries again and
    again to reach such a port may even end up connected to itself. The processes that
    share the tests have ranges of their own, and none gives a port twice.
    """
    lowest = _LOWEST + worker() % _SHARES * _SHARE
    while True:
        port = random.randrange(lowest, lowest + _SHARE)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port

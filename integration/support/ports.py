"""Choose a port for a server that is stopped and started again."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def free_port() -> int:
    """Choose a free port that no outgoing connection can take while a server is down.

    The kernel hands out ephemeral ports from 32768 up; a client that tries again and
    again to reach such a port may even end up connected to itself.
    """
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port

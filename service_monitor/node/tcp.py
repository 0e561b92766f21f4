"""What an accepted TCP connection proves, and what it does not.

The kernel, docker-proxy or a load balancer may accept while no service is there, and a
server that is full or has locked us out says so and hangs up. All of them close at once
what a service keeps: so look for a moment before believing in it.
"""

from __future__ import annotations

import re
import socket

from service_monitor.timing import now

LOOK = 0.2
"""Seconds for which the peer has to keep the connection."""
RESET = "accepted, then reset at once"
_MOST_RECEIVED = 64 * 1024
_WORDS = re.compile(r"[^\W_][ -~\w]{3,}")


def ended_by_peer(sock: socket.socket, seconds: float) -> str | None:
    """Say how the peer ended the connection, None if it kept it for so long.

    What it sent before that is quoted, as far as people can read it. Blocks for
    `seconds` at the most.
    """
    deadline, received = now() + seconds, b""
    while (left := deadline - now()) > 0 and len(received) < _MOST_RECEIVED:
        sock.settimeout(left)
        try:
            more = sock.recv(4096)
        except TimeoutError:
            return None
        except OSError:  # a reset, whatever the kernel calls it
            return f"{RESET}{_quote(received)}"
        if not more:
            return f"accepted, then closed at once{_quote(received)}"
        received += more
    return None


def _quote(received: bytes) -> str:
    """Quote the words in a message of a protocol that we do not speak."""
    words = " ".join(_WORDS.findall(received.decode(errors="replace"))).strip()
    return f", saying: {words}" if words else ""

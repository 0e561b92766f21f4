"""Find out whether a port that hung up on us is one for TLS, or one without.

etcd's own port says neither: it closes the connection, as one does that is just being
restarted. So the other way is tried, once, where etcd has never answered.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

from service_monitor.errors import Stopped
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import connect
from service_monitor.stores.endpoint import Endpoint
from service_monitor.timing import now

LONGEST = 1.0
"""Seconds that it may take."""


def is_of_the_other_kind(endpoint: Endpoint, deadline: float, bounds: Bounds) -> bool:
    """Tell whether it speaks TLS although it is named as a plain one, or the reverse.

    True only if it surely does: it spoke TLS to us, or answered HTTP with 200. Blocks
    up to `LONGEST`, or the deadline (seconds of `timing.now`).
    """
    seconds = min(LONGEST, deadline - now())
    with suppress(OSError, Stopped):
        return bounded(lambda: _speaks_it(endpoint, seconds), seconds, bounds)
    return False


def _speaks_it(endpoint: Endpoint, seconds: float) -> bool:
    try:
        with connect(endpoint.host, endpoint.port, seconds) as sock:
            if endpoint.scheme == "http":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE  # nothing is sent, nor believed
                with context.wrap_socket(sock):
                    return True
            sock.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            start = sock.recv(16)
            return start.startswith(b"HTTP/1.") and start[8:13] == b" 200 "
    except ssl.SSLError as error:
        return "_ALERT_" in (error.reason or "")  # it wants a certificate of ours
    except OSError:
        return False

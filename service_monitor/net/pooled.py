"""How the connections of a urllib3 pool are made: ours, and those of boto3."""

from __future__ import annotations

import socket

from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util import Timeout

from service_monitor.errors import describe
from service_monitor.net.connect import connect


class SideBySide(HTTPConnection):
    """A connection to the first address that answers; it goes down with its call."""

    def _new_conn(self) -> socket.socket:
        seconds = Timeout.resolve_default_timeout(self.timeout)
        try:
            return connect(
                self._dns_host, self.port, seconds, self.socket_options or ()
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host}: no answer") from error
        except OSError as error:
            raise NewConnectionError(self, describe(error)) from error

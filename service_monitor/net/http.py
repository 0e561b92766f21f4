"""A `requests` session whose sockets go down with the bounded call that uses them."""

from __future__ import annotations

import re
import socket
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead, parse_headers
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from service_monitor.net.addresses import in_url
from service_monitor.net.calls import adopt
from service_monitor.net.head import Head
from service_monitor.net.pooled import SideBySide
from service_monitor.net.zones import brought_back

# A peer that vanished is noticed by the kernel after 2 + 3 x 1 s, not after hours.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]

MOST_ERROR = 64 * 1024
"""Bytes of an answer's body that are read where only its first words are shown."""


_LONGEST_LINE = 64 * 1024
_CHUNK_LENGTH = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})(?![0-9A-Fa-f])")


class _Answer(HTTPResponse):
    """An answer as `net.head` reads it."""

    def begin(self) -> None:
        file = self.fp
        self.fp = Head(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # not closed on the way
                self.fp = file
        self.headers.defects.clear()  # of a mail; urllib3 logs them, with a traceback
        if self.length == 0:  # by its status: so there are no chunks either
            self.chunked = False

    def _read_status(self) -> tuple[str, int, str]:
        """Pass over what comes before the answer itself, as 103 Early Hints."""
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if found[1] == HTTPStatus.SWITCHING_PROTOCOLS or found[1] >= HTTPStatus.OK:
                return found
            parse_headers(self.fp)

    def _read_next_chunk_size(self) -> int:
        """Read it as other clients do; Python's own takes -3 and 1_0 for numbers."""
        line = self.fp.readline(_LONGEST_LINE)
        if not line:
            raise IncompleteRead(b"")
        digits = _CHUNK_LENGTH.match(line)
        if not digits:
            raise HTTPException("a chunk begins without its length")
        return int(digits[1], 16)

    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:  # a line ends each chunk, with CR or without
            if self.fp.readline(3).strip(b"\r\n"):
                raise HTTPException("a chunk is longer than it says")
            self.chunk_left = None
        left: int | None = super()._get_chunk_left()  # type: ignore[misc]
        return left


class _Adopting(SideBySide):
    default_socket_options = _KEEPALIVE
    response_class = _Answer

    def __init__(self, host: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(brought_back(host), *args, **kwargs)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept from an earlier call
            adopt(self.sock)
        if "%" in self.host:  # the zone is ours, and no server's business
            port = None if self.port == self.default_port else self.port
            given = {"Host": in_url(self.host.partition("%")[0], port)}
            kwargs["headers"] = given | {
                name.title() if name.lower() == "host" else name: value
                for name, value in kwargs["headers"].items()
            }
        super().request(*args, **kwargs)


class _AdoptingTls(_Adopting, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Adopting  # type: ignore[assignment]


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _AdoptingTls  # type: ignore[assignment]


POOLS = {"http": _Pool, "https": _TlsPool}
"""For a urllib3 PoolManager's `pool_classes_by_scheme`."""


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find none: `requests` would read the whole body to prepare for it."""


def new_session(
    *,
    ca: str | None = None,
    cert: tuple[str, str] | None = None,
    verify: bool = True,
) -> requests.Session:
    """Return a session without proxies, .netrc, cookies, redirects or retries.

    `ca` is a bundle's path (default: certifi's), `cert` the client's certificate and
    key.
    """
    session = _Session()
    session.trust_env = False
    session.verify = ca if ca and verify else verify
    session.cert = cert
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.headers.clear()
    session.headers.update(
        {"User-Agent": "service_monitor", "Accept-Encoding": "identity"}
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


def text_of(answer: requests.Response) -> str:
    """Read a streamed answer's body: all of a success, `MOST_ERROR` of all else."""
    if answer.status_code == 200:
        body = answer.content
    else:
        body = answer.raw.read(MOST_ERROR, decode_content=True)
    return bytes(body).decode(errors="replace")

"""A `requests` session whose sockets go down with the bounded call that uses them."""

from __future__ import annotations

import socket
from http.client import HTTPException, HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from service_monitor.calls import adopt
from service_monitor.net.pooled import SideBySide

# A peer that vanished is noticed by the kernel after 2 + 3 x 1 s, not after hours.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]

MOST_HEADER = 128 * 1024
"""Bytes of an answer before its body: http.client takes 100 lines of 64 KiB each."""

MOST_ERROR = 64 * 1024
"""Bytes of an answer's body that are read where only its first words are shown."""


class _Header:
    """The file that an answer is read from, up to `MOST_HEADER`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MOST_HEADER
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException(f"got more than {MOST_HEADER} bytes of headers")
        return line


class _Answer(HTTPResponse):
    def begin(self) -> None:
        file = self.fp
        self.fp = _Header(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # not closed on the way
                self.fp = file


class _Adopting(SideBySide):
    default_socket_options = _KEEPALIVE
    response_class = _Answer

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept from an earlier call
            adopt(self.sock)
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

"""A `requests` session that makes each request a bounded call."""

from __future__ import annotations

import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from service_monitor.net.addresses import in_url
from service_monitor.net.answer import Answer
from service_monitor.net.pooled import SideBySide
from service_monitor.net.sockets import adopt
from service_monitor.net.zones import restored

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


class _Adopting(SideBySide):
    """A connection that goes down with the bounded call, also one kept from before."""

    default_socket_options = _KEEPALIVE
    response_class = Answer

    def __init__(self, host: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(restored(host), *args, **kwargs)

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
    """The same over TLS."""


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

    `ca` is the path of a bundle (default: certifi's), `cert` the paths of the client's
    certificate and key. Sends nothing.
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
    """Read a streamed answer's body: all of a success, `MOST_ERROR` of all else.

    Blocks until that has come: so this is for a bounded call. Raises RequestException
    and urllib3's HTTPError.
    """
    if answer.status_code == 200:
        body = answer.content
    else:
        body = answer.raw.read(MOST_ERROR, decode_content=True)
    return bytes(body).decode(errors="replace")

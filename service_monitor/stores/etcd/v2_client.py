"""python-etcd's client, changed to tell etcd's answers from anything else's.

By itself it takes every 404 that is JSON for a key that is not there, and forgets the
status of what is not JSON: the page of a proxy would read as "nobody is up".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import etcd

from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable, describe
from service_monitor.net.http import POOLS
from service_monitor.net.zones import carried
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.answers import foreign, words
from service_monitor.stores.etcd.api import V2
from service_monitor.stores.etcd.failures import CannotSend, library_call
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.reading import NotEtcd, Part, as_number, parse
from service_monitor.stores.etcd.silence import silence


class Foreign(Exception):
    """An answer that is not of etcd's v2 API."""

    def __init__(self, status: int, text: str, location: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.text = text
        self.location = location


ERRORS = (etcd.EtcdException, Foreign, OSError, CannotSend)
"""What a call may raise."""
_UNAUTHORIZED = 110


class _Client(etcd.Client):  # type: ignore[misc]
    def _handle_server_response(self, response: Any) -> Any:
        text = response.data.decode(errors="replace")
        try:
            body = parse(text)
            if response.status in (200, 201):
                _check_node(body.part("node"), read=body.text("action", "") == "get")
            else:
                body.number("errorCode")
                body.number("index", 0)
        except NotEtcd:
            location = response.headers.get("Location", "")
            raise Foreign(response.status, text, location) from None
        return super()._handle_server_response(response)


def _check_node(node: Part, *, read: bool) -> None:
    """Raise `NotEtcd` for what is no node; one that was `read` has a value."""
    if node.flag("dir"):
        for each in node.parts("nodes"):
            _check_node(each, read=read)
        return
    node.text("key")
    node.text("value", None if read else "")
    for name in "createdIndex", "modifiedIndex":
        node.number(name)
    node.number("ttl", 0)


def index_of(error: etcd.EtcdKeyNotFound) -> int:
    """Return the index of etcd at which it did not find a key."""
    return as_number((error.payload or {}).get("index", 0))


def new_client(endpoint: Endpoint, access: Access) -> Any:
    """Return a client for one endpoint, without failover, redirects and retries."""
    # Ends up in latin-1, whatever it holds; etcd reads UTF-8.
    user, password = (
        text and text.encode().decode("latin-1")
        for text in (access.user, access.password)
    )
    client = _Client(
        host=carried(endpoint.host),
        port=endpoint.port,
        protocol=endpoint.scheme,
        cert=access.cert,
        ca_cert=access.ca,
        username=user,
        password=password,
        read_timeout=CALL_TIMEOUT,
        allow_redirect=False,
        allow_reconnect=False,
    )
    client.http.pool_classes_by_scheme = POOLS
    client.http.connection_pool_kw["retries"] = False  # we fail over instead
    client.http.urlopen = _sending(client.http.urlopen)
    return client


def _sending(urlopen: Callable[..., Any]) -> Callable[..., Any]:
    def send(*args: Any, **settings: Any) -> Any:
        with library_call():
            return urlopen(*args, **settings)

    return send


def translate(
    error: BaseException,
    endpoint: Endpoint,
    access: Access,
    doing: str,
    *,
    known: bool,
    other_kind: Callable[[], bool],
) -> StoreError:
    """Turn one of `ERRORS` into the error to raise; `doing` is such as "read".

    `known` and `other_kind` are as for `silence`.
    """
    if isinstance(error, etcd.EtcdConnectionFailed | OSError):
        cause = getattr(error, "cause", None) or error
        return silence(endpoint, cause, V2, known=known, other_kind=other_kind)
    if isinstance(error, Foreign):
        secrets = _secrets(access)
        if error.status != 401:
            answer = error.status, error.text, doing, error.location
            return foreign(V2, *answer, secrets=secrets)
        code, reason = _UNAUTHORIZED, words(error.text, secrets)
    else:
        code = (getattr(error, "payload", None) or {}).get("errorCode", 0)
        spoken = isinstance(error, etcd.EtcdException)  # others may quote a request
        reason = words(str(error)) if spoken else describe(error)
    if not 100 <= code < 300:  # 300 and above is etcd's own trouble
        return StoreUnavailable(reason)
    if code == _UNAUTHORIZED:
        hint = "name a user in the URL, USER@HOST, with a password"
        if access.user:
            hint = f"is the password of {access.user!r} right"
        reason += f": {hint}"
        reason += f", and has the user a role with readwrite on {access.prefix}*?"
    return StoreRefused(f"{endpoint}: cannot {doing}: {reason}")


def _secrets(access: Access) -> tuple[str, ...]:
    """Return what an answer may quote of our requests, and we must not show."""
    both = f"{access.user}:{access.password}".encode()
    return (access.password, b64encode(both).decode()) if access.password else ()

"""python-etcd's client, made to tell etcd's answers from those of anything else.

By itself it takes every 404 that is JSON for a key that is not there, and forgets the
status of what is not JSON: the page of a proxy would read as "nobody is up".
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import etcd

from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable, describe
from service_monitor.net.http import POOLS
from service_monitor.net.zones import carried
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.etcd.answers import V2, foreign, words
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.silence import silence


class Foreign(Exception):
    """An answer that is not of etcd's v2 API."""

    def __init__(self, status: int, text: str, location: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.text = text
        self.location = location


ERRORS = (etcd.EtcdException, Foreign, OSError, ValueError)
"""What a call may raise."""
_UNAUTHORIZED = 110


class _Client(etcd.Client):  # type: ignore[misc]
    def _handle_server_response(self, response: Any) -> Any:
        text = response.data.decode(errors="replace")
        done = response.status in (200, 201)
        try:
            body = json.loads(text)
            ours = isinstance(body["node"] if done else body["errorCode"], dict | int)
        except (KeyError, TypeError, ValueError):
            ours = False
        if not ours:
            location = response.headers.get("Location", "")
            raise Foreign(response.status, text, location)
        return super()._handle_server_response(response)


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
    return client


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
        code, said = _UNAUTHORIZED, words(error.text, secrets)
    else:
        code = (getattr(error, "payload", None) or {}).get("errorCode", 0)
        spoken = isinstance(error, etcd.EtcdException)  # others may quote a request
        said = words(str(error)) if spoken else describe(error)
    if not 100 <= code < 300:  # 300 and above is etcd's own trouble
        return StoreUnavailable(said)
    if code == _UNAUTHORIZED:
        hint = "name a user in the URL, USER@HOST, with a password"
        if access.user:
            hint = f"is the password of {access.user!r} right"
        said += f": {hint}"
        said += f", and has the user a role with readwrite on {access.prefix}*?"
    return StoreRefused(f"{endpoint}: cannot {doing}: {said}")


def _secrets(access: Access) -> tuple[str, ...]:
    """Return what an answer may quote of our requests, and we must not show."""
    both = f"{access.user}:{access.password}".encode()
    return (access.password, b64encode(both).decode()) if access.password else ()

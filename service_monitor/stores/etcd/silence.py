"""Explain a failed connection to an etcd: wrong port, certificates, or an outage.

What no waiting ends is a refusal, all else an outage.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http.client import BadStatusLine, RemoteDisconnected

from service_monitor.errors import StoreError, causes, describe
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.answers import words
from service_monitor.stores.etcd.api import Api
from service_monitor.stores.etcd.failures import DeadToken, Outage, WrongAddress

_NO_ANSWER = (
    "is this a port for TLS ({0}s://), the gRPC port of an etcd with its HTTP on "
    "another one (--listen-client-http-urls), or does it hang up on who is not let in "
    "(user, password; etcd#15256)?"
)
_NO_TLS = "is this a port without TLS ({0}://), or an etcd that is just starting?"
_PLAIN = "it speaks no TLS: use {0}:// for this port"
_CLIENT_CERTIFICATE = (
    "it wants a client certificate that it trusts: give cert and key (missing, "
    "expired, or of another CA?)"
)
_TLS_REFUSED = {
    "WRONG_VERSION_NUMBER": _PLAIN,
    "HTTP_REQUEST": _PLAIN,
    "PACKET_LENGTH_TOO_LONG": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
    "SSLV3_ALERT_BAD_CERTIFICATE": _CLIENT_CERTIFICATE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _CLIENT_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _CLIENT_CERTIFICATE,
}
_TIMELY = {9, 10}
"""X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED: a clock that is set or a renewal ends
them while we wait."""


def silence(
    endpoint: Endpoint,
    error: BaseException,
    api: Api,
    *,
    known: bool,
    other_kind: Callable[[], bool],
) -> StoreError:
    """Turn a connection's failure into the error to raise.

    `known` is whether etcd has answered at this address before: it is then no other
    kind of port. `other_kind` asks whether only one of us uses TLS.
    """
    reason = describe(error)
    chain = tuple(causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _TIMELY:
                return Outage(reason)
            return WrongAddress(f"{reason}: is ca=FILE the CA of this etcd?")
        if isinstance(cause, ssl.SSLError) and cause.reason in _TLS_REFUSED:
            return WrongAddress(
                f"{_TLS_REFUSED[cause.reason].format(api.scheme)} ({reason})"
            )
        if isinstance(cause, BadStatusLine) and not _broke_off(cause):
            line = str(cause)
            if "\x15\x03" in line or r"\x15\x03" in line:
                return WrongAddress(api.secure)
            return WrongAddress(
                f"it speaks no HTTP, but {words(line)!r}: {api.missing}"
            )
    if not any(_broke_off(cause) for cause in chain):
        return Outage(reason)
    if not known:
        if other_kind():
            plain = endpoint.scheme == "http"
            return WrongAddress(api.secure if plain else _PLAIN.format(api.scheme))
        guess = _NO_TLS if endpoint.scheme == "https" else _NO_ANSWER
        reason = f"{reason}: {guess.format(api.scheme)}"
    return Outage(reason, DeadToken.PERHAPS)


def _broke_off(error: BaseException) -> bool:
    """Tell whether there was a connection, and the other side ended it."""
    cut = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, RemoteDisconnected)
    return isinstance(error, cut) or type(error).__name__ == "IncompleteRead"

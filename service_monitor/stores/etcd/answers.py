"""Judge an answer of etcd that is no success: try later, or never like this.

No I/O. A refusal is what no waiting ends; all else is an outage. Both show the words
that came, cut and made printable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from service_monitor.errors import StoreError
from service_monitor.net.urls import mask_url
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.api import V3, Api
from service_monitor.stores.etcd.failures import (
    DeadToken,
    EtcdRefusal,
    LeaseGone,
    NotLetIn,
    Outage,
    WrongAddress,
)
from service_monitor.stores.etcd.reading import NotEtcd, Part, as_number, parse
from service_monitor.text import masked, printable

LONGEST_WORDS = 160
"""Characters of an answer that are shown: enough for a sentence, no page of a proxy."""

# gRPC codes, https://grpc.io/docs/guides/status-codes/
INVALID, NOT_FOUND, DENIED, FAILED_PRECONDITION = 3, 5, 7, 9
OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED = 11, 12, 16
_FINAL = {INVALID, NOT_FOUND, DENIED, FAILED_PRECONDITION}
_FINAL |= {OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED}
_LATER = {408, 425, 429}
"""HTTP's own ways to say "not now" below 500."""
# After these etcd's own client authenticates again, whatever their code.
_STALE_TOKEN = (
    "invalid auth token",
    "user name is empty",
    "revision in header is old",
    "revision of auth store is old",
)
_PASSING = ("not leader", "learner")
"""In what only this member says, and only for now, although the code is final."""
# etcd's gateway cannot act for the user that a certificate names (etcd#17025).
_COMMON_NAME = (
    "use a client certificate without a Common Name, and a user with a password"
)


class ErrorMessage(NamedTuple):
    """An error in etcd's words, and gRPC's code for it; 0 if there is none."""

    text: str
    code: int


def words(text: str, secrets: Iterable[str] = ()) -> str:
    """Return what a text says on one short line, without its HTML and our secrets."""
    text = masked(text, secrets)
    bare = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]{0,500}>", " ", text[:65536])
    return printable(" ".join(bare.split()), LONGEST_WORDS)


class RequestInfo(NamedTuple):
    """What an error is to say of its request, and the secrets that it must not quote.

    `doing` is such as "read".
    """

    endpoint: Endpoint
    doing: str
    user: str | None
    prefix: str
    secrets: tuple[str, ...]


def judge(
    request: RequestInfo, status: int, text: str, location: str = ""
) -> StoreError:
    """Turn an HTTP answer that is no success into the error to raise.

    `location` is where a redirect leads.
    """
    message = parse_error(text)
    if message is None or not message.code:  # a proxy may speak JSON too
        return foreign(V3, status, text, request.doing, location, request.secrets)
    return refusal(request, message)


def refusal(request: RequestInfo, message: ErrorMessage) -> StoreError:
    """Turn an error in etcd's words into the error to raise."""
    text, code = message
    own = "etcdserver:" in text or "auth:" in text
    shown = words(text, request.secrets)
    if any(stale in text for stale in _STALE_TOKEN):
        code = UNAUTHENTICATED
    elif "permission denied" in text:
        code = DENIED
    if code in (NOT_FOUND, UNIMPLEMENTED) and not own:
        return WrongAddress(f"cannot {request.doing}: {shown}: {V3.missing}")
    if code not in _FINAL or any(passing in text for passing in _PASSING):
        return Outage(shown, DeadToken.NO if own else DeadToken.PERHAPS)
    dead_token, hint = DeadToken.NO, ""
    if code == UNAUTHENTICATED:
        dead_token = DeadToken.SURELY
        if not request.user:
            hint = ": it has users: name a user in the URL, USER@HOST, with a password"
    elif code == DENIED:
        dead_token = DeadToken.PERHAPS
        name = f"the user {request.user!r}" if request.user else "the user"
        hint = f": {name} needs a role with readwrite on {request.prefix}"
    gone = code == NOT_FOUND and "lease not found" in text
    reason = f"{request.endpoint}: cannot {request.doing}: {shown}{hint}"
    return (LeaseGone if gone else EtcdRefusal)(reason, code, dead_token)


def failure_of_watch(message: Part) -> ErrorMessage | None:
    """Return why a watch's message ends it in failure.

    None for all others: what says to list again, and what says nothing. Raises
    `NotEtcd` for what is none.
    """
    if "error" in message:
        nested = _error_in(message.fields)
        return nested or ErrorMessage(str(message.fields["error"]), 0)
    result = message.part("result")
    if result.flag("canceled") and not result.number("compact_revision", 0):
        reason = result.text("cancel_reason", "") or "the watch was cancelled"
        return ErrorMessage(reason, 0)
    return None


def parse_error(text: str) -> ErrorMessage | None:
    """Read an error as grpc-gateway writes it, v1 and v2, of a call or a stream."""
    try:
        return _error_in(parse(text).fields)
    except NotEtcd:
        return None


def _error_in(body: Mapping[str, object]) -> ErrorMessage | None:
    inner = body.get("error")
    fields = inner if isinstance(inner, dict) else body
    text = fields.get("message") or fields.get("error")
    if not isinstance(text, str):
        return None
    try:
        code = as_number(fields.get("code") or fields.get("grpc_code") or 0)
    except NotEtcd:
        return None
    return ErrorMessage(text, code)


def foreign(
    api: Api,
    status: int,
    text: str,
    doing: str,
    location: str = "",
    secrets: Iterable[str] = (),
) -> StoreError:
    """Judge what is not in etcd's form: its HTTP layer, a proxy, something else."""
    message = parse_error(text)
    shown = words(message.text if message else text, secrets)
    reason = f"HTTP {status}" + (f": {shown}" if shown else "")
    if status < 300:
        if not shown:
            return Outage("an empty answer", DeadToken.PERHAPS)
        return WrongAddress(f"{api.strange}: {shown}")
    if location:
        where = mask_url(location.partition("?")[0])  # what follows may quote us
        reason += f", to {printable(where, LONGEST_WORDS)}: name that address instead"
    if status in (404, 405, 501):
        return WrongAddress(f"cannot {doing}: {reason}: {api.missing}")
    if status in _LATER or status >= 500:
        return Outage(reason, DeadToken.PERHAPS)
    if "CommonName" in text:
        reason += f": {_COMMON_NAME}"
    elif "HTTPS server" in text or "sent to HTTPS" in text:
        reason += f": {api.secure}"
    kind = NotLetIn if status in (401, 403) else WrongAddress
    return kind(f"cannot {doing}: {reason}")

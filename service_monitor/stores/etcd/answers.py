"""What an etcd, or whatever answers in its place, has said: later, or never like this.

No I/O. A refusal is what no waiting lifts; all else is an outage. Both show the words
that came, cut and made printable.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable
from service_monitor.net.urls import mask_url
from service_monitor.stores.etcd.endpoints import Endpoint, RefusedHere
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


class Api(NamedTuple):
    """Which of etcd's two APIs is spoken: its name, its URLs, why it may be missing."""

    name: str
    scheme: str
    missing: str

    @property
    def secure(self) -> str:
        """Say that a port is one for TLS."""
        return f"it speaks TLS: use {self.scheme}s:// for this port"

    @property
    def strange(self) -> str:
        """Say that what came is not of this API."""
        return f"not an answer of etcd's {self.name} API"


V3 = Api(
    "v3",
    "etcd",
    "no v3 API here: is it etcd 3.4 or later, its JSON gateway on (with a "
    "configuration file: enable-grpc-gateway: true), not v2 only (etcd2://), its HTTP "
    "not on another port (--listen-client-http-urls), behind no proxy that wants a "
    "path, and etcd at all?",
)
V2 = Api(
    "v2",
    "etcd2",
    "no v2 API here: start etcd with --enable-v2 (up to 3.5) or use etcd://; or is it "
    "behind a proxy that wants a path, or no etcd at all?",
)


class Doubt(enum.Enum):
    """Whether a failure may come from a token that is no longer known."""

    NONE = "no"
    PERHAPS = "some gateways, proxies and watches say it so"
    CERTAIN = "etcd says it"


class Refusal(StoreRefused):
    """An error that etcd itself gave; `code` is gRPC's."""

    def __init__(self, message: str, code: int, doubt: Doubt = Doubt.NONE) -> None:
        super().__init__(message)
        self.code = code
        self.doubt = doubt


class Misplaced(RefusedHere):
    """This address will not serve us, whatever we ask."""

    doubt = Doubt.NONE


class Barred(RefusedHere):
    """Something at this address lets us not through: a proxy, if not a dead token."""

    doubt = Doubt.PERHAPS


class Trouble(StoreUnavailable):
    """It cannot be served now."""

    def __init__(self, message: str, doubt: Doubt = Doubt.NONE) -> None:
        super().__init__(message)
        self.doubt = doubt


class LeaseGone(Refusal):
    """The etcd lease that a request was about does not exist, or no more."""


def doubt_of(error: BaseException) -> Doubt:
    """Tell whether it may come from a dead token."""
    found: Doubt = getattr(error, "doubt", Doubt.NONE)
    return found


class Said(NamedTuple):
    """An error in etcd's words, and gRPC's code for it; 0 if there is none."""

    message: str
    code: int


def words(text: str, secrets: Iterable[str] = ()) -> str:
    """Return what a text says on one short line, without its HTML and our secrets."""
    text = masked(text, secrets)
    bare = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]{0,500}>", " ", text[:65536])
    return printable(" ".join(bare.split()), LONGEST_WORDS)


class About(NamedTuple):
    """What an error is to say of its request, and the secrets that it must not quote.

    `doing` is such as "read".
    """

    endpoint: Endpoint
    doing: str
    user: str | None
    prefix: str
    secrets: tuple[str, ...]


def judge(about: About, status: int, text: str, location: str = "") -> StoreError:
    """Turn an HTTP answer that is no success into the error to raise.

    `location` is where a redirect leads.
    """
    said = _parse(text)
    if said is None or not said.code:  # a proxy may speak JSON too
        return foreign(V3, status, text, about.doing, location, about.secrets)
    return refusal(about, said)


def refusal(about: About, said: Said) -> StoreError:
    """Turn an error in etcd's words into the error to raise."""
    message, code = said
    own = "etcdserver:" in message or "auth:" in message
    shown = words(message, about.secrets)
    if any(stale in message for stale in _STALE_TOKEN):
        code = UNAUTHENTICATED
    elif "permission denied" in message:
        code = DENIED
    if code in (NOT_FOUND, UNIMPLEMENTED) and not own:
        return Misplaced(f"cannot {about.doing}: {shown}: {V3.missing}")
    if code not in _FINAL or any(passing in message for passing in _PASSING):
        return Trouble(shown, Doubt.NONE if own else Doubt.PERHAPS)
    doubt, hint = Doubt.NONE, ""
    if code == UNAUTHENTICATED:
        doubt = Doubt.CERTAIN
        if not about.user:
            hint = ": it has users: name a user in the URL, USER@HOST, with a password"
    elif code == DENIED:
        doubt = Doubt.PERHAPS
        name = f"the user {about.user!r}" if about.user else "the user"
        hint = f": {name} needs a role with readwrite on {about.prefix}"
    kind = LeaseGone if code == NOT_FOUND and "lease not found" in message else Refusal
    return kind(f"{about.endpoint}: cannot {about.doing}: {shown}{hint}", code, doubt)


def of_watch(message: Any) -> Said | None:
    """Return the words and the code of a watch's message that ends it in failure.

    None for all others: what says to list again, and what says nothing. Raises
    ValueError for what is none.
    """
    if not isinstance(message, dict):
        raise ValueError(message)
    if "error" in message:
        return _parse(json.dumps(message)) or Said(str(message["error"]), 0)
    result = message.get("result", {})
    if result.get("canceled") and not result.get("compact_revision"):
        return Said(result.get("cancel_reason") or "the watch was cancelled", 0)
    return None


def _parse(text: str) -> Said | None:
    """Read an error as grpc-gateway writes it, v1 and v2, of a call or a stream."""
    try:
        body = json.loads(text)
        if isinstance(body.get("error"), dict):
            body = body["error"]
        message = body.get("message") or body["error"]
        if not isinstance(message, str):
            return None
        return Said(message, int(body.get("code") or body.get("grpc_code") or 0))
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def foreign(
    api: Api,
    status: int,
    text: str,
    doing: str,
    location: str = "",
    secrets: Iterable[str] = (),
) -> StoreError:
    """Judge what is not in etcd's form: its HTTP layer, a proxy, something else."""
    own = _parse(text)
    shown = words(own.message if own else text, secrets)
    said = f"HTTP {status}" + (f": {shown}" if shown else "")
    if status < 300:
        if not shown:
            return Trouble("an empty answer", Doubt.PERHAPS)
        return Misplaced(f"{api.strange}: {shown}")
    if location:
        where = mask_url(location.partition("?")[0])  # what follows may quote us
        said += f", to {printable(where, LONGEST_WORDS)}: name that address instead"
    if status in (404, 405, 501):
        return Misplaced(f"cannot {doing}: {said}: {api.missing}")
    if status in _LATER or status >= 500:
        return Trouble(said, Doubt.PERHAPS)
    if "CommonName" in text:
        said += f": {_COMMON_NAME}"
    elif "HTTPS server" in text or "sent to HTTPS" in text:
        said += f": {api.secure}"
    kind = Barred if status in (401, 403) else Misplaced
    return kind(f"cannot {doing}: {said}")

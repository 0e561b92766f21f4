"""A URL to probe, read once: where to connect to, what to ask for, as whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_to_bytes

from service_monitor.net.addresses import check_zone, split_port
from service_monitor.net.credentials import check_text
from service_monitor.net.escapes import check_escapes
from service_monitor.net.urls import mask_url
from service_monitor.text import hide

LONGEST_URL = 2048
"""Characters of a URL: what is longer, no store and no service could be reached by."""

_URL = re.compile(
    r"(?P<scheme>https?|tcp)://(?P<user>[^/?#\\\[\]]*@)?(?P<place>[^/?#@]*)"
    r"(?P<rest>[/?][^#]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class MonitoredURL:
    """An `http`, `https` or `tcp` URL that was checked."""

    scheme: str
    """`http`, `https` or `tcp`."""
    host: str
    """A name in lower case or an address, without brackets; `%` begins its zone."""
    port: int | None
    """The port if the URL names one; `tcp` always does."""
    bare: str = field(repr=False)
    """The URL without user and password."""
    credentials: tuple[bytes, bytes] | None = field(repr=False)
    """User and password as they are sent, in UTF-8 (RFC 7617)."""
    masked: str
    """The whole URL, with *** for what is secret in it."""
    has_secret: bool
    """Whether anything in it is secret."""

    def __str__(self) -> str:
        return self.masked


def read_monitored_url(text: str) -> MonitoredURL:
    """Read what to probe: http, https or tcp, with a host, and for tcp a port.

    Raises ValueError, whose message goes on where the quoted URL ends. From then on no
    log line and no error shows the password.
    """
    plain = text.isascii() and text.isprintable() and " " not in text
    if not plain or len(text) > LONGEST_URL:
        raise ValueError(
            f"is not a URL: ASCII without spaces, up to {LONGEST_URL} long"
        )
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(
            "is not a URL to probe: write http(s)://[USER:PASSWORD@]HOST[:PORT]/PATH "
            "or tcp://HOST:PORT; # is %23 there"
        )
    user, _, password = (match["user"] or "").removesuffix("@").partition(":")
    sent = unquote(password, errors="surrogateescape")  # as the bytes that are sent
    hide(password, sent, user=unquote(user, errors="surrogateescape"))
    check_escapes(match["user"] or "")
    check_text("what stands before the @", unquote(user + password))
    host, port = split_port(match["place"])
    check_zone(host)
    scheme = match["scheme"].lower()
    if scheme == "tcp" and (port is None or match["user"] or match["rest"]):
        raise ValueError("is not just tcp://HOST:PORT")
    name, percent, zone = host.partition("%")
    masked = mask_url(text)
    return MonitoredURL(
        scheme,
        name.lower() + percent + zone,
        port,
        bare=f"{scheme}://{match['place']}{match['rest'] or ''}",
        credentials=(
            (unquote_to_bytes(user), unquote_to_bytes(password))
            if match["user"]
            else None
        ),
        masked=scheme + masked[len(scheme) :],
        has_secret=masked != text,
    )

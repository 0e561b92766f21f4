"""What was given or answered, as it may be shown: printable, short, no passwords."""

from __future__ import annotations

import re

from service_monitor.addresses import split_port

_OPTION = re.compile(r"([?&](?!password-file=)[^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?<=//)[^/?#]*")


def quoted(text: str) -> str:
    """Quote it in ASCII: escaped where needed, and never a whole screen."""
    whole = ascii(text)
    return whole if len(whole) <= 80 else f"{whole[:76]}...'"


def printable(text: str, longest: int | None = None) -> str:
    """Escape what would break the line or move the cursor, and cut what is too long."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    cut = longest is not None and len(line) > longest
    return f"{line[:longest]}..." if cut else line


def mask_url(url: str) -> str:
    """Hide the password of a URL.

    All up to the last @ goes, since a password with a raw / or # in it does not parse.
    And so does what was given as an option that does not exist. But an @ that comes
    after a host and its port, in the path or the query, makes no password of the port.
    """
    return _OPTION.sub(r"\1***", _without_password(url))


def _without_password(url: str) -> str:
    for authority in _AUTHORITY.finditer(url):
        end = url.rfind("@")
        if end < authority.start():
            return url
        user, at, _ = authority[0].rpartition("@")
        name, colon, _ = (user if at else authority[0]).partition(":")
        if colon and (at or not _are_places(authority[0])):
            return f"{url[: authority.start()]}{name}:***{url[end:]}"
    return url


def _are_places(text: str) -> bool:
    try:
        return all(split_port(place) for place in text.split(","))
    except ValueError:
        return False

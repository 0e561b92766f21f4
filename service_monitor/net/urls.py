"""A URL as it may be shown: without its password."""

from __future__ import annotations

import re

from service_monitor.net.addresses import split_port

_OPTION = re.compile(r"([?&](?!password-file=)[^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?<=//)[^/?#]*")


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

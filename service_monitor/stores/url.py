"""The grammar of store URLs: one for all stores, and one way to refuse a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service_monitor.errors import ConfigError
from service_monitor.net.escapes import unescape
from service_monitor.net.urls import mask_url
from service_monitor.text import quoted

_PARTS = re.compile(
    r"(?P<scheme>[a-z0-9]+)://(?:(?P<user>[^@/?#]*)@)?(?P<places>[^@/?#]*)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<options>[^@#]*))?",
    re.IGNORECASE,
)
PREFIX = r"(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*/?"
"""A path that is the prefix of our keys in a store that others use too."""


@dataclass(frozen=True)
class StoreURL:
    """The parts of a store's URL, its escapes decoded.

    `places` is what stands between // and the path, such as hosts or a table; `masked`
    the URL without its password.
    """

    scheme: str
    places: str
    path: str
    user: str | None
    password: str = field(repr=False)
    options: Mapping[str, str]
    masked: str

    def wrong(self, what: str) -> ConfigError:
        """Return the error that says what is wrong with this URL."""
        return _wrong(self.masked, what)


@dataclass(frozen=True)
class Grammar:
    """What the URLs of one store hold.

    `form` tells how to write them; `places` and `path` are patterns of these parts.
    With `plain` they are of printable ASCII without blanks. `options` are the names
    that may follow a "?", None if nothing may.
    """

    form: str
    places: str
    path: str
    options: tuple[str, ...] | None
    users: bool = False
    plain: bool = True

    def parse(self, text: str) -> StoreURL:
        """Split a URL. Raises `ConfigError`, which never shows its password."""
        masked = mask_url(text)
        parts = _PARTS.fullmatch(text)
        if parts is None or not self._fits(text, parts):
            raise _wrong(masked, self.form)
        try:
            user, password = _user(parts["user"])
            return StoreURL(
                scheme=parts["scheme"].lower(),
                places=parts["places"],
                path=unescape(parts["path"] or ""),
                user=user,
                password=password,
                options=self._options(parts["options"] or ""),
                masked=masked,
            )
        except ValueError as error:
            raise _wrong(masked, str(error)) from None

    def _fits(self, text: str, parts: re.Match[str]) -> bool:
        plain = text.isascii() and text.isprintable() and " " not in text
        return (
            (plain or not self.plain)
            and re.fullmatch(self.places, parts["places"]) is not None
            and re.fullmatch(self.path, parts["path"] or "") is not None
            and (self.users or parts["user"] is None)
            and (self.options is not None or parts["options"] is None)
        )

    def _options(self, text: str) -> dict[str, str]:
        known = self.options or ()
        found: dict[str, str] = {}
        for part in filter(None, text.split("&")):
            pair = part.replace("+", " ").partition("=")
            name, value = unescape(pair[0]), unescape(pair[2])
            if name not in known:
                raise ValueError(
                    f"has an unknown option {quoted(name)}: use {', '.join(known)}"
                )
            if not value or name in found:
                raise ValueError(f"needs {name} once, with a value")
            found[name] = value
        return found


def _user(given: str | None) -> tuple[str | None, str]:
    """Read what stands before the @. Raises ValueError, which quotes nothing of it."""
    if given is None:
        return None, ""
    user, _, password = given.partition(":")
    if not user or "," in given:
        raise ValueError("names no user before the @, once for all hosts")
    return unescape(user), unescape(password)


def _wrong(masked: str, what: str) -> ConfigError:
    gap = "" if what.startswith(":") else " "
    return ConfigError(f"store {quoted(masked)}{gap}{what}")

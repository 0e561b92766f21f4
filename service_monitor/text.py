"""Texts from outside made fit for a log: printable, short, without passwords."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

_PIECES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_LEAST = 6
"""Characters that a secret has at the least: masking less would mask common words."""
_SCHEMES = {"bearer", "digest", "negotiate"}

_QUOTES = tuple("\"'`\u201c\u201d\u2018\u2019")
"""What a file for `docker run --env-file` leaves around a value."""

_hidden: tuple[str, ...] = ()


def hide(*secrets: str | None, user: str | None = None) -> None:
    """Let `masked` take these secrets out, in whatever form they may be sent.

    This is the last resort. Nothing may rest on it: what may hold a secret is not to be
    logged in the first place.
    """
    global _hidden
    found = set(_hidden)
    for secret in secrets:
        whole = secret or ""
        pieces = {whole, *_PIECES.split(whole)}
        for piece in pieces:
            if len(piece) >= _LEAST and piece.lower() not in _SCHEMES:
                found |= _forms(piece)
        if user and len(whole) >= _LEAST:
            sent = _base64(f"{user}:{whole}")
            found |= {sent, quote(sent, safe="")}
    _hidden = tuple(sorted(found, key=len, reverse=True))


def forget_hidden() -> None:
    """Forget the secrets that `hide` was given: each command has its own."""
    global _hidden
    _hidden = ()


def masked(text: str) -> str:
    """Put *** in the place of each secret that `hide` was given."""
    for secret in _hidden:
        text = text.replace(secret, "***")
    return text


def _forms(secret: str) -> set[str]:
    raw = secret.encode(errors="surrogateescape")
    escaped = ascii(secret)[1:-1], repr(raw)[2:-1], json.dumps(secret)[1:-1]
    plain = raw, raw.decode("latin-1"), _base64(secret)
    return {secret, *escaped, *plain[1:], *(quote(form, safe="") for form in plain)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


def quoted(text: str) -> str:
    """Quote a text in ASCII, escaped where needed, in 80 characters at the most."""
    whole = ascii(text)
    return whole if len(whole) <= 80 else f"{whole[:76]}...'"


def printable(text: str, longest: int | None = None) -> str:
    """Mask secrets, escape what would break the line, cut what is too long."""
    text = masked(text)  # before it is cut: a part of a secret is one, too
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    cut = longest is not None and len(line) > longest
    return f"{line[:longest]}..." if cut else line


def has_windows_end(value: str) -> bool:
    """Tell whether a line of the value ends in a carriage return."""
    return re.search(r"\r(\n|\Z)", value) is not None


def is_in_quotes(value: str) -> bool:
    """Tell whether quotes stand around the value, or around what follows KEY=."""
    text = value.strip()
    if text.startswith(_QUOTES):
        return True
    _, equals, rest = text.partition("=")
    whole = re.fullmatch(r"([\"']).*\1", rest.strip(), re.DOTALL)
    return bool(equals and whole and re.match(r"[\w.-]+=", text))

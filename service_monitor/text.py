"""What was given or answered, as it may be shown: printable, short, no passwords."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

_PIECES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_LEAST = 6
"""Characters of what is hidden at the least: less is no secret, and masks words."""
_SCHEMES = {"bearer", "digest", "negotiate"}

_QUOTES = tuple("\"'`\u201c\u201d\u2018\u2019")
"""What a file for `docker run --env-file` leaves around a value."""

_hidden: tuple[str, ...] = ()


def hide(*secrets: str | None, user: str | None = None) -> None:
    """Let none of these through `masked`, in whatever form it was sent.

    With `user` also not the header of HTTP Basic that both make. What has less than
    `_LEAST` characters stays. This is the last resort: nothing that may hold a secret
    is shown on purpose.
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
    """Hide nothing any more, as each command of a process has secrets of its own."""
    global _hidden
    _hidden = ()


def masked(text: str, others: Iterable[str] = ()) -> str:
    """Return the text without what is hidden, and without `others`, however short.

    `others` are for what answers one request of ours, and may quote a short password of
    it, which elsewhere would mask words.
    """
    forms = (form for other in others if other for form in _forms(other))
    for secret in *_hidden, *sorted(forms, key=len, reverse=True):
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
    """Quote it in ASCII: escaped where needed, and never a whole screen."""
    whole = ascii(text)
    return whole if len(whole) <= 80 else f"{whole[:76]}...'"


def printable(text: str, longest: int | None = None) -> str:
    """Escape what would break the line or move the cursor, and cut what is too long."""
    text = masked(text)  # before it is cut: a part of a secret is one, too
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    cut = longest is not None and len(line) > longest
    return f"{line[:longest]}..." if cut else line


def has_windows_end(value: str) -> bool:
    """Tell whether a line of it ends in a carriage return."""
    return re.search(r"\r(\n|\Z)", value) is not None


def is_in_quotes(value: str) -> bool:
    """Tell whether quotes stand around it, or around what follows KEY=."""
    text = value.strip()
    if text.startswith(_QUOTES):
        return True
    _, equals, rest = text.partition("=")
    whole = re.fullmatch(r"([\"']).*\1", rest.strip(), re.DOTALL)
    return bool(equals and whole and re.match(r"[\w.-]+=", text))

"""Percent-escapes in the parts of a URL that are decoded: user, password, path."""

from __future__ import annotations

import re
from urllib.parse import unquote

_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def check_escapes(text: str) -> None:
    """Refuse a % that begins no escape.

    Taken as it stands, it would stop working as soon as two hexadecimal digits follow.
    Raises ValueError, which quotes nothing: it may be a piece of a password.
    """
    if _NO_ESCAPE.search(text):
        raise ValueError("has a % that escapes nothing: write %25 for it")


def unescape(text: str) -> str:
    """Decode the escapes. Raises ValueError for a stray %, and for what is no UTF-8."""
    check_escapes(text)
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("escapes bytes that are not UTF-8") from None

"""What was given or answered, as it may be shown: printable, short, no passwords."""

from __future__ import annotations

import re

_OPTION = re.compile(r"([?&](?!password-file=)[^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)
_PASSWORD = re.compile(r"//([^/?#:@]*):.*@", re.DOTALL)


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
    And so does what was given as an option that does not exist.
    """
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"//\1:***@", url))

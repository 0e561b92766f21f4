"""What a user name, a password or a token may hold, before it is sent anywhere.

A line end at its end comes of `$(cat FILE)` done wrong, or of a secret's editor. In a
header it would be refused by a library whose error quotes it.
"""

from __future__ import annotations

import unicodedata

_NEVER = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters, bytes that are no text, and ends of lines and paragraphs."""

NOT_SHOWN = "it is not shown here"


def check_text(name: str, text: str | None) -> None:
    """Refuse control characters in what is sent encoded: etcd's, a service's password.

    Raises ValueError naming it, and showing nothing of it.
    """
    if any(unicodedata.category(character) in _NEVER for character in text or ""):
        raise ValueError(
            f"has a control character in {name}, such as a line end: take it out "
            f"({NOT_SHOWN})"
        )


def is_plain(text: str | None) -> bool:
    """Tell whether it can be sent in a header as it is: printable ASCII, no blanks."""
    text = text or ""
    return text.isascii() and text.isprintable() and " " not in text

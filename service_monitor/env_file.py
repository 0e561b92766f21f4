"""What a file for `docker run --env-file` leaves in a value that does not belong there.

Nothing takes its quotes away, nor the carriage returns of Windows line ends.
"""

from __future__ import annotations

import re

_QUOTES = tuple("\"'`\u201c\u201d\u2018\u2019")


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

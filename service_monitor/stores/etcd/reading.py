"""Fields of etcd's JSON, each read as what it has to be.

No I/O. What is not of that shape comes from something else than etcd, and raises
`NotEtcd`; so a TypeError of ours stays the crash that it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import re

_NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class NotEtcd(Exception):
    """What came is not of etcd's API: a field is missing, or of another type."""


def as_number(value: object) -> int:
    """Return an integer; JSON has those of 64 bits as text. Raises `NotEtcd`."""
    if type(value) is int:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    raise NotEtcd("no number")


def parse(text: str | bytes) -> Part:
    """Read a JSON object. Raises `NotEtcd`."""
    try:
        return Part(json.loads(text))
    except (ValueError, RecursionError):
        raise NotEtcd("no JSON") from None


class Part:
    """A JSON object of an answer. Its readers raise `NotEtcd`.

    A null counts as missing: the gateway writes what is empty so, or leaves it out.
    """

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise NotEtcd("no object")
        self.fields: dict[str, object] = {
            name: v for name, v in value.items() if v is not None
        }

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def part(self, name: str) -> Part:
        """Return an object in it; an empty one where it is missing."""
        return Part(self.fields.get(name, {}))

    def parts(self, name: str) -> list[Part]:
        """Return a list of objects; an empty one where it is missing."""
        found = self.fields.get(name, [])
        if not isinstance(found, list):
            raise NotEtcd(f"{name} is no list")
        return [Part(each) for each in found]

    def number(self, name: str, default: int | None = None) -> int:
        """Return a number; the default where it is missing, if there is one."""
        return as_number(self.fields.get(name, default))

    def flag(self, name: str) -> bool:
        """Return a truth value; False where it is missing."""
        found = self.fields.get(name, False)
        if not isinstance(found, bool):
            raise NotEtcd(f"{name} is neither true nor false")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; the default where it is missing, if there is one."""
        found = self.fields.get(name, default)
        if not isinstance(found, str):
            raise NotEtcd(f"{name} is no text")
        return found

    def decoded(self, name: str, default: str | None = None) -> str:
        """Return the text that is in it in base64, as etcd v3 has keys and values."""
        try:
            found = base64.b64decode(self.text(name, default).encode("ascii"))
        except (binascii.Error, UnicodeEncodeError):
            raise NotEtcd(f"{name} is no base64") from None
        return found.decode(errors="replace")

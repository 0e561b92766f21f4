"""Take the head of an HTTP answer as curl and browsers do: 103s, odd headers.

`http.client` reads headers with a parser of mails. That stops at the first line that is
no header, and what comes after is lost, the length of the body with it; and urllib3
logs a traceback. So the lines are put right before it sees them:

1. What is no header is left out: no colon, or a name that is none. A blank line alone
   ends the headers.
2. A header that goes on in the next line is one.
3. Of several lengths the last one counts; with "chunked" none does.
4. Of more headers than `http.client` takes those are kept that matter.
"""

from __future__ import annotations

import re
from http.client import HTTPException
from typing import BinaryIO

MOST_HEADER = 128 * 1024
"""Bytes of an answer before its body: http.client takes 100 lines of 64 KiB each."""
_MOST_LINES = 90
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(rb"[\x01-\x08\x0a-\x1f\x7f]")
_FRAMING = (b"content-length", b"transfer-encoding")
_UNUSED = (b"set-cookie", b"set-cookie2")  # nothing of ours keeps cookies
_NEEDED = (*_FRAMING, b"connection", b"location")

Header = tuple[bytes, bytes]


class Head:
    """The file that an answer is read from, up to its body and `MOST_HEADER`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MOST_HEADER
        self._lines: list[bytes] | None = None  # of the headers; None: status is next
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        """Return the next line: of the status, of a header, or the blank one."""
        if self._lines is None:
            self._lines = []
            return _status(self._next(limit))
        if not self._lines:
            self._lines = self._headers(limit)
        line = self._lines.pop(0)
        if not line.strip(b"\r\n"):
            self._lines = None
        return line

    def _headers(self, limit: int) -> list[bytes]:
        lines = []
        while (line := self._next(limit)).strip(b"\r\n"):
            if len(line) >= limit:
                return [line]  # for http.client to refuse
            lines.append(line)
        return [b"%s: %s\r\n" % header for header in tamed(lines)] + [line]

    def _next(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException(f"got more than {MOST_HEADER} bytes of headers")
        return line


def _status(line: bytes) -> bytes:
    """Put right how some write the version; it is an answer of HTTP/1 all the same."""
    short = not line.endswith(b"\n") and len(line) < 1024
    if short and line[:5].upper() == b"HTTP/":  # all else is left to its reader
        raise HTTPException("the answer breaks off in its first line")
    return re.sub(rb"^http/(2(\.0)?(?=\s))?", _version, line, flags=re.IGNORECASE)


def _version(match: re.Match[bytes]) -> bytes:
    return b"HTTP/1.1" if match[1] else b"HTTP/"


def tamed(lines: list[bytes]) -> list[Header]:
    """Return the headers in these lines that there are, ready for a strict reader.

    Raises HTTPException for a NUL byte, which no client takes.
    """
    headers = [header for header in _read(lines) if not _is(header, _UNUSED)]
    codings = _values(headers, b"transfer-encoding")
    lengths = _values(headers, b"content-length")
    others = [header for header in headers if not _is(header, _FRAMING)]
    if len(others) > _MOST_LINES:
        others = [header for header in others if _is(header, _NEEDED)][:_MOST_LINES]
    if codings.rpartition(b",")[2].strip().lower() == b"chunked":
        return [*others, (b"Transfer-Encoding", b"chunked")]
    if length := lengths.rpartition(b",")[2].strip():
        others.append((b"Content-Length", length))
    return others


def _is(header: Header, names: tuple[bytes, ...]) -> bool:
    return header[0].lower() in names


def _values(headers: list[Header], name: bytes) -> bytes:
    return b",".join(header[1] for header in headers if _is(header, (name,)))


def _read(lines: list[bytes]) -> list[Header]:
    headers: list[Header] = []
    good = False  # the line before, to be gone on with
    for line in lines:
        if b"\0" in line:
            raise HTTPException("a header holds a NUL byte")
        text = _CONTROL.sub(b" ", line.rstrip(b"\r\n"))
        if text[:1] in (b" ", b"\t"):
            if good:
                name, value = headers[-1]
                headers[-1] = name, value + b" " + text.strip()
            continue
        name, colon, value = text.partition(b":")
        good = bool(colon) and _NAME.fullmatch(name.strip()) is not None
        if good:
            headers.append((name.strip(), value.strip()))
    return headers

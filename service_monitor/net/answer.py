"""Read an HTTP answer within bounds: status and headers first, then a short body."""

from __future__ import annotations

import re
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead, parse_headers

from service_monitor.net.head import Head

_LONGEST_LINE = 64 * 1024
_CHUNK_LENGTH = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})(?![0-9A-Fa-f])")


class Answer(HTTPResponse):
    """An answer whose status and headers `net.head` puts right first."""

    def begin(self) -> None:
        """Read status and headers; blocks. Raises HTTPException and OSError."""
        file = self.fp
        self.fp = Head(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # not closed on the way
                self.fp = file
        self.headers.defects.clear()  # of a mail; urllib3 logs them, with a traceback
        if self.length == 0:  # by its status: so there are no chunks either
            self.chunked = False

    def _read_status(self) -> tuple[str, int, str]:
        """Pass over what comes before the answer itself, as 103 Early Hints."""
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if found[1] == HTTPStatus.SWITCHING_PROTOCOLS or found[1] >= HTTPStatus.OK:
                return found
            parse_headers(self.fp)

    def _read_next_chunk_size(self) -> int:
        """Read it as other clients do; Python's own takes -3 and 1_0 for numbers."""
        line = self.fp.readline(_LONGEST_LINE)
        if not line:
            raise IncompleteRead(b"")
        digits = _CHUNK_LENGTH.match(line)
        if not digits:
            raise HTTPException("a chunk begins without its length")
        return int(digits[1], 16)

    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:  # a line ends each chunk, with CR or without
            if self.fp.readline(3).strip(b"\r\n"):
                raise HTTPException("a chunk is longer than it says")
            self.chunk_left = None
        left: int | None = super()._get_chunk_left()  # type: ignore[misc]
        return left

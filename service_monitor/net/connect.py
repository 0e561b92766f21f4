"""One connection to a name, with one deadline for all of its addresses (RFC 8305).

The addresses are tried side by side, IPv6 and IPv4 in turn, each a moment after the one
before it or as soon as that has failed; the first that answers wins. One after the
other, as the standard library has it, a single address that is a black hole costs the
whole deadline.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from service_monitor.errors import describe
from service_monitor.net.lacks import lack_in
from service_monitor.net.resolve import Place, resolve
from service_monitor.net.sockets import adopt
from service_monitor.timing import now

STAGGER = 0.25
"""Seconds until the next address is tried beside one that does not answer; RFC 8305."""
MARGIN = 0.25
"""Seconds before its deadline at which it gives up, or a tenth of a short deadline: so
that there is time to say which address did not answer."""
MOST_NAMED = 4
"""Addresses that a reason names; a name can have any number."""

Option = tuple[int, int, int | bytes]


class NotConnected(OSError):
    """No address of a name could be connected to; the text says what each one said."""


_limit = threading.local()


@contextmanager
def connecting_within(seconds: float) -> Iterator[None]:
    """Let no connection that this thread makes take longer than so many seconds."""
    _limit.deadline = now() + seconds
    try:
        yield
    finally:
        del _limit.deadline


def connect(
    host: str,
    port: int,
    seconds: float | None,
    options: Iterable[Option] = (),
    stagger: float = STAGGER,
) -> socket.socket:
    """Return a socket, connected to the first address of the host that answers.

    Blocks for up to `seconds` (None: without end), which are then the timeout of each
    use of the socket. Resolving the name comes before, and is bounded by nothing here:
    so this is for a bounded call, with which the socket goes down. `stagger` is how
    many seconds an address has for itself before the next one is tried, too.

    Raises gaierror, TimeoutError, `NotConnected` (for a host that is an address, the
    OSError of that address), and the OSError of what this machine lacks.
    """
    attempts = _Attempts(host, resolve(host, port), tuple(options), stagger)
    try:
        sock = attempts.run(seconds)
    finally:
        attempts.close()
    sock.settimeout(seconds)
    return sock


class _Attempts:
    """The attempts at one name, and what came of each."""

    def __init__(
        self,
        host: str,
        places: list[Place],
        options: tuple[Option, ...],
        stagger: float,
    ) -> None:
        self._host = host.strip("[]")
        self._places = places
        self._options = options
        self._stagger = stagger
        self._errors: dict[Place, OSError] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, seconds: float | None) -> socket.socket:
        """Return the socket of the first address that answers."""
        limit = float("inf") if seconds is None else seconds
        limit = min(limit, getattr(_limit, "deadline", float("inf")) - now())
        deadline = now() + limit - min(MARGIN, limit / 10)
        stagger = min(self._stagger, limit / (len(self._places) + 1))
        left, next_start = list(self._places), now()
        while left or self._selector.get_map():
            moment = now()
            if moment >= deadline:
                break
            if left and (moment >= next_start or not self._selector.get_map()):
                self._start(left.pop(0))
                next_start = moment + stagger
                continue
            until = min(deadline, next_start) if left else deadline
            if won := self._look(None if until == float("inf") else until - moment):
                return won
        raise self._failure()

    def close(self) -> None:
        """End the attempts that did not win."""
        for key in list(self._selector.get_map().values()):
            _end(key.fileobj)  # type: ignore[arg-type]
        self._selector.close()

    def _start(self, place: Place) -> None:
        sock = None
        try:
            sock = socket.socket(place.family, socket.SOCK_STREAM)
            for option in self._options:
                sock.setsockopt(*option)
            sock.setblocking(False)
            code = sock.connect_ex(place.address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            adopt(sock)  # not before: one that does not connect yet cannot be shut
            self._selector.register(sock, selectors.EVENT_WRITE, place)
        except OSError as error:
            if sock is not None:
                sock.close()
            if lack_in(error):  # no other address is any help
                raise
            self._errors[place] = error

    def _look(self, seconds: float | None) -> socket.socket | None:
        """Wait until an attempt has ended; return its socket if it is connected."""
        for key, _ in self._selector.select(seconds):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            self._selector.unregister(sock)
            error = _error_of(sock)
            if error is None:
                return sock
            self._errors[key.data] = error
            _end(sock)
        return None

    def _failure(self) -> OSError:
        silent = TimeoutError("no answer in time")
        errors = [self._errors.get(place, silent) for place in self._places]
        if len(errors) == 1 and self._places[0].address[0] == self._host:
            return errors[0]  # whoever gave the address knows it
        named = [
            f"{place} {_outcome(error)}"
            for place, error in zip(self._places, errors, strict=True)
        ]
        if len(named) > MOST_NAMED:
            named[MOST_NAMED:] = [f"and {len(named) - MOST_NAMED} more"]
        return NotConnected(errno.EHOSTUNREACH, ", ".join(named))


def _error_of(sock: socket.socket) -> OSError | None:
    """Return what became of an attempt, None if it is connected."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return OSError(code, os.strerror(code))
    try:
        # Where nobody listens, a port of the ephemeral range may answer itself.
        itself = sock.getsockname() == sock.getpeername()
    except OSError as error:  # reset at once
        return error
    code = errno.ECONNREFUSED
    return OSError(code, os.strerror(code)) if itself else None


def _end(sock: socket.socket) -> None:
    """Close it, and what a bounded call keeps of it."""
    with suppress(OSError):  # never was connected
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _outcome(error: OSError) -> str:
    return "no answer" if isinstance(error, TimeoutError) else describe(error)

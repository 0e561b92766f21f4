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
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from service_monitor.errors import describe
from service_monitor.net.addresses import is_only_here, with_port
from service_monitor.net.calls import adopt
from service_monitor.net.lacks import lack_in
from service_monitor.net.zones import with_index
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


class _Place(NamedTuple):
    family: socket.AddressFamily
    address: tuple[Any, ...]

    def __str__(self) -> str:
        return with_port(str(self.address[0]), self.address[1])


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
    host: str, port: int, seconds: float | None, options: Iterable[Option] = ()
) -> socket.socket:
    """Return a socket, connected to the first address of the host that answers.

    It blocks for up to the seconds at each later use, and goes down with the bounded
    call that it was made in. Raises gaierror, `NotConnected`, for an address that was
    given as such its own OSError, TimeoutError, and the OSError of what this machine
    lacks.
    """
    attempts = _Attempts(host, _resolve(host, port), tuple(options))
    try:
        sock = attempts.run(seconds)
    finally:
        attempts.close()
    sock.settimeout(seconds)
    return sock


def local_address(host: str, port: int, seconds: float) -> str:
    """Return the address of this machine that the host is reached from.

    Nothing is sent where the routes alone tell: connecting a UDP socket looks one up.
    If they lead out by several addresses, only a connection tells which of them works;
    but of those that mean nothing elsewhere any will do.
    Raises as `connect`.
    """
    found: dict[str, None] = {}
    error: OSError | None = None
    for place in _resolve(host, port):
        try:
            with socket.socket(place.family, socket.SOCK_DGRAM) as sock:
                sock.connect(place.address)
                found[str(sock.getsockname()[0])] = None
        except OSError as no_route:
            error = error or no_route
    if len(found) == 1 or (found and all(map(is_only_here, found))):
        return next(iter(found))
    if not found:
        raise error or OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    with connect(host, port, seconds) as sock:
        return str(sock.getsockname()[0])


def _resolve(host: str, port: int) -> list[_Place]:
    """Return the addresses in the system's order, the families in turn."""
    host = with_index(host.strip("[]"))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from None
    families: dict[int, dict[_Place, None]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, {})[_Place(family, address)] = None
    turns = zip_longest(*families.values())
    return [place for place in chain.from_iterable(turns) if place]


class _Attempts:
    """The attempts at one name, and what came of each."""

    def __init__(
        self, host: str, places: list[_Place], options: tuple[Option, ...]
    ) -> None:
        self._host = host.strip("[]")
        self._places = places
        self._options = options
        self._errors: dict[_Place, OSError] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, seconds: float | None) -> socket.socket:
        """Return the socket of the first address that answers."""
        limit = float("inf") if seconds is None else seconds
        limit = min(limit, getattr(_limit, "deadline", float("inf")) - now())
        deadline = now() + limit - min(MARGIN, limit / 10)
        stagger = min(STAGGER, limit / (len(self._places) + 1))
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

    def _start(self, place: _Place) -> None:
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
            f"{place} {_said(error)}"
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


def _said(error: OSError) -> str:
    return "no answer" if isinstance(error, TimeoutError) else describe(error)

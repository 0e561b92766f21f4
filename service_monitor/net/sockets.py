"""Shut the sockets of a bounded call when its time is over."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

_current = threading.local()


class Sockets:
    """The sockets that one call uses, so that another thread can shut them down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._duplicates: list[socket.socket] = []
        self._shut = False

    def collect(self) -> None:
        """Take in what this thread passes to `adopt` from now on."""
        _current.sockets = self

    def add(self, sock: socket.socket) -> None:
        """Make `sock` go down with the others; close it and raise OSError where this
        machine has no file left for that.

        A duplicate is kept, since TLS and a response that outlives its connection both
        take the socket object away while the connection stays the same.
        """
        try:
            duplicate = socket.socket(fileno=os.dup(sock.fileno()))
        except OSError:  # no file left: who called may not come to close it
            sock.close()
            raise
        with self._lock:
            self._duplicates.append(duplicate)
            if self._shut:
                _shut(duplicate)

    def shut(self) -> None:
        """Shut all of them down, those still to come included; who reads or writes
        there wakes up."""
        with self._lock:
            self._shut = True
            for duplicate in self._duplicates:
                _shut(duplicate)

    def let_go(self) -> None:
        """Leave the connections to their owners: the call has ended."""
        with self._lock:
            for duplicate in self._duplicates:
                duplicate.close()
            self._duplicates.clear()


def adopt(sock: socket.socket) -> None:
    """Make `sock` go down with the bounded call that this thread runs, if it runs one.

    Raises OSError where this machine has no file left for that; then it is closed.
    """
    sockets: Sockets | None = getattr(_current, "sockets", None)
    if sockets is not None:
        sockets.add(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected yet, or already gone: nothing to shut
        sock.shutdown(socket.SHUT_RDWR)

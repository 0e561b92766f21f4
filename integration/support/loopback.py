"""A server on loopback that misbehaves exactly as told."""

from __future__ import annotations

import atexit
import errno
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

Talk = Callable[[socket.socket], None]


class Loopback:
    """Talks to each connection in a thread of its own, until it is closed."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/"

    @property
    def connections(self) -> int:
        """Return how many there were so far."""
        return len(self._connections)

    @property
    def idle(self) -> bool:
        """Tell whether all of them have ended."""
        return not any(thread.is_alive() for thread in self._threads[1:])

    def close(self) -> None:
        self.closing.set()
        _shut(self._listener)
        for connection in self._connections:
            _shut(connection)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self._tls is None:
                self._talk(connection)
                return
            with self._tls.wrap_socket(connection, server_side=True) as secured:
                self._talk(secured)


class Serve:
    """Starts servers that end with the test."""

    def __init__(self) -> None:
        self.started: list[Loopback] = []

    def __call__(self, talk: Talk, **settings: object) -> Loopback:
        self.started.append(Loopback(talk, **settings))  # type: ignore[arg-type]
        return self.started[-1]


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    """Read up to the end of the headers; see `read_more` for a client that hangs up."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += read_more(connection)
    return request


def read_message(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read a request of a known length; return its headers and its body."""
    head, _, body = read_request(connection).partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    while len(body) < int(length or 0):
        body += read_more(connection)
    return head, body


def read_more(connection: socket.socket) -> bytes:
    """Read what comes next.

    Raises ConnectionError, which ends the talk and is no fault of the server's, when
    the client has hung up: a call that is cut off may do that before its request.
    """
    if not (more := connection.recv(65536)):
        raise ConnectionError("the client has hung up")
    return more


def answering(answer: bytes, requests: list[bytes] | None = None) -> Talk:
    """Read a request, keep it, and answer."""

    def talk(connection: socket.socket) -> None:
        request = read_request(connection)
        if requests is not None:
            requests.append(request)
        connection.sendall(answer)

    return talk


def status(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Write an HTTP answer."""
    lines = (f"HTTP/1.1 {line}", *headers, f"Content-Length: {len(body)}")
    return "".join(f"{text}\r\n" for text in lines).encode() + b"\r\n" + body


def dripping(start: bytes, drop: bytes, every: float = 0.05) -> Talk:
    """Answer with `start`, then a drop at a time for ever."""

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(start)
        while True:
            time.sleep(every)
            connection.sendall(drop)

    return talk


def at_last(answer: bytes) -> Talk:
    """Answer after all has come: what is unread makes a reset of the end."""

    def talk(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            while connection.recv(65536):
                pass
        connection.sendall(answer)

    return talk


def hanging(connection: socket.socket) -> None:
    """Take everything and never answer."""
    while connection.recv(65536):
        pass


def reset_at_close(connection: socket.socket) -> None:
    """Let it end by a reset, not in peace."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


_MOST_BOUND = 50
_bound: deque[socket.socket] = deque()


@atexit.register
def _close_bound() -> None:
    """Let the last ones go in silence."""
    for sock in _bound:
        sock.close()


def unused_port() -> int:
    """Return a port of loopback where nobody listens, nor will while a test lasts.

    It stays bound, so that no server of another test gets it. Whoever sets
    SO_REUSEADDR, as servers do, may bind it on purpose.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    _bound.append(sock)
    if len(_bound) > _MOST_BOUND:
        _bound.popleft().close()
    return int(sock.getsockname()[1])


@contextmanager
def one_port(*addresses: str) -> Iterator[list[socket.socket]]:
    """Bind a socket at each address, all to one port; none listens yet."""
    with ExitStack() as stack:
        for _ in range(100):
            sockets = [stack.enter_context(_unbound(address)) for address in addresses]
            port = 0
            try:
                for sock, address in zip(sockets, addresses, strict=True):
                    sock.bind((address, port))
                    port = sock.getsockname()[1]
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                stack.pop_all().close()
                continue
            yield sockets
            return
        raise AssertionError(f"no port is free at all of {addresses}")


def _unbound(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock

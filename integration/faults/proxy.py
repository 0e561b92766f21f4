"""A TCP proxy in front of one server, that damages connections exactly as told.

    with Proxy("127.0.0.1", 2379) as proxy:
        proxy.lose_replies(match=b"/v3/kv/txn")
        Client("127.0.0.1", proxy.port)

Its port stays its own as long as it lives, also while connections are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Self

from integration.support.ports import free_port

CHUNK = 65536
QUEUED = 64  # chunks held back in each direction of a connection, then it must wait
CONNECT_TIMEOUT = 5.0
VERB_TIMEOUT = 30.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What becomes of a new connection."""

    PASS = "pass"
    BLACK_HOLE = "black hole"
    RESET = "reset"
    REFUSE = "refuse"


class Proxy:
    """Forwards connections to `host:port`; every verb may come from any thread.

    A verb has taken effect when it returns. Faults of different kinds add up until
    `heal`, but there is one answer to new connections: that of the last verb about it.
    """

    def __init__(self, host: str, port: int, *, listen: int | None = None) -> None:
        self.upstream = (host, port)
        self.port = listen or free_port()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        self._listener.bind(("127.0.0.1", self.port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._accepting: asyncio.Task[None] | None = None
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._mode = Mode.PASS
        self._delay = 0.0
        self._to_lose = 0
        self._match: bytes | None = None
        self._hang = False
        self.lost = 0
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._become(Mode.PASS))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and give the port back; may be called again."""
        if self._thread.is_alive():
            self._do(self._become(Mode.REFUSE))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(VERB_TIMEOUT)
        self._loop.close()
        self._listener.close()

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as "127.0.0.1:port"."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Return how many connections are open, the silent ones included."""
        return len(self._links)

    def latency(self, seconds: float) -> None:
        """Make every round trip take that much longer, half of it each way."""
        self._delay = seconds / 2

    def silence(self) -> None:
        """Turn the connections there are half-open, for good; new ones work.

        As when a firewall forgets a connection, or a machine vanishes and its address
        comes back elsewhere: whatever is sent is taken, and nothing ever answers.
        """
        self._do(self._silence())

    def black_hole(self) -> None:
        """Accept connections and forward nothing, those there are included.

        They stay silent after `heal`; only new ones work then.
        """
        self._do(self._become(Mode.BLACK_HOLE))

    def reset(self) -> None:
        """Reset the connections there are, and each new one."""
        self._do(self._become(Mode.RESET))

    def refuse(self) -> None:
        """Be a machine where nobody listens: new connections are refused.

        Those there are get reset.
        """
        self._do(self._become(Mode.REFUSE))

    def lose_replies(
        self, count: int = 1, match: bytes | None = None, *, hang: bool = False
    ) -> None:
        """Lose the answers to the next `count` requests, which are carried out.

        The connection is reset in place of the answer, or with `hang` silent from then
        on. `match` is what the bytes of a request must contain, in its head or its
        body. Made for protocols where a connection has one request under way at a time.
        `lost` counts.
        """
        self._do(self._arm(count, match, hang))

    def heal(self) -> None:
        """Forward everything from now on, at once."""
        self._delay = 0.0
        self._do(self._become(Mode.PASS))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(VERB_TIMEOUT)

    async def _arm(self, count: int, match: bytes | None, hang: bool) -> None:
        self._to_lose, self._match, self._hang = count, match, hang

    async def _silence(self) -> None:
        for link in self._links:
            link.silent = True

    async def _become(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.PASS:
            self._to_lose = 0
        if mode is Mode.BLACK_HOLE:
            await self._silence()
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._accepting is None:
            self._listener.listen(512)
            self._accepting = asyncio.create_task(self._accept())
        if mode in (Mode.RESET, Mode.REFUSE):
            links, tasks = [*self._links], [*self._links.values()]
            for link, task in self._links.items():
                link.rude = True
                if not link.ending:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while not self._links.keys().isdisjoint(links):
                await asyncio.sleep(0)

    async def _stop_listening(self) -> None:
        if self._accepting:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            # Linux: no longer listening, and yet the port is nobody else's.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting = None

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listener)
            except OSError:  # no file descriptor left: the client may wait
                await asyncio.sleep(0.1)
                continue
            self.accepted += 1
            if self._mode is Mode.RESET:
                _close(client, rude=True)
            else:
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        link = _Link(self, client, silent=self._mode is Mode.BLACK_HOLE)
        self._links[link] = asyncio.create_task(link.run())
        self._links[link].add_done_callback(lambda _: self._ended(link))

    def _ended(self, link: _Link) -> None:
        del self._links[link]
        link.close()  # here, for a task may be cancelled before it begins


class _Link:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, proxy: Proxy, client: socket.socket, *, silent: bool) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        self.silent = silent
        self.rude = False
        self.ending = False
        self._losing = False
        self._asked = b""  # the end of what the client has sent since the last answer

    async def run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            for sock in self._client, self._server:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop = asyncio.get_running_loop()
            if not self.silent:
                # Not wait_for: before Python 3.12 it can lose a cancellation.
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await loop.sock_connect(self._server, self._proxy.upstream)
            outward = asyncio.create_task(self._lane(self._client, self._server))
            tasks = {outward}
            if not self.silent:
                tasks.add(asyncio.create_task(self._lane(self._server, self._client)))
            while tasks:
                ended, tasks = await asyncio.wait(
                    tasks, return_when=asyncio.FIRST_COMPLETED
                )
                errors = [task.exception() for task in ended]
                self.rude = any(errors)
                # The client of a silent connection must not learn of the server's end.
                if outward in ended or not self.silent:
                    break
        except OSError:  # the server cannot be reached
            self.rude = True
        finally:
            self.ending = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        _close(self._client, rude=self.rude)
        _close(self._server, rude=self.rude)

    async def _lane(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward one direction until its end, which is the end of both."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED)
        deliver = asyncio.create_task(self._deliver(queue, sink))
        try:
            while data := await loop.sock_recv(source, CHUNK):
                if self.silent or not self._passes(data, source is self._server):
                    continue
                await queue.put((loop.time() + self._proxy._delay, data))
                if deliver.done():
                    break
            if not self.silent:
                await queue.put((loop.time() + self._proxy._delay, b""))
                await deliver
        finally:
            deliver.cancel()
            await asyncio.gather(deliver, return_exceptions=True)

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], sink: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                return
            if not self.silent:
                await loop.sock_sendall(sink, data)

    def _passes(self, data: bytes, is_answer: bool) -> bool:
        """Tell whether to forward; raise ConnectionResetError to end it here."""
        proxy = self._proxy
        if is_answer:
            self._asked = b""
            if self._losing:
                proxy.lost += 1
                self._losing = False
                self.silent = proxy._hang
                if not proxy._hang:
                    raise ConnectionResetError
                return False
        elif proxy._to_lose and not self._losing:
            self._asked += data
            if proxy._match is None or proxy._match in self._asked:
                proxy._to_lose -= 1
                self._losing = True
            self._asked = self._asked[-CHUNK:]
        return True


def _close(sock: socket.socket, *, rude: bool) -> None:
    if rude:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()

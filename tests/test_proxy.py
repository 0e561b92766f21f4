"""The proxy that the fault tests stand on does exactly what it is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from integration.faults.proxy import Proxy
from integration.support.commands import wait_until
from integration.support.loopback import Loopback, Serve

SHORT = 0.2
"""Seconds of silence that are taken for a connection that stays silent."""


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture
def server(serve: Serve) -> Loopback:
    return serve(echo)


@pytest.fixture
def proxy(server: Loopback) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy
    assert proxy.connections == 0


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data) and (more := connection.recv(65536)):
        answer += more
    return answer


def works(proxy: Proxy) -> bool:
    with client(proxy) as connection:
        return ask(connection) == b"hello"


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SHORT)
    try:
        return ask(connection) is None
    except TimeoutError:
        return True


def test_forwards_all_of_it(proxy: Proxy) -> None:
    """A test could fail, or pass, by what the proxy itself does."""
    data = bytes(range(256)) * 20000
    with client(proxy) as connection:
        for start in range(0, len(data), 300000):
            part = data[start : start + 300000]
            assert ask(connection, part) == part
    wait_until(lambda: proxy.connections == 0)


def test_an_end_is_passed_on(proxy: Proxy, server: Loopback) -> None:
    """Connections would pile up on both sides."""
    with client(proxy) as connection:
        assert ask(connection) == b"hello"
    wait_until(lambda: server.idle)
    with client(proxy) as connection:
        assert ask(connection) == b"hello"
        server.close()
        assert connection.recv(1) == b""
    wait_until(lambda: proxy.connections == 0)


def test_latency_is_added_to_each_round_trip(proxy: Proxy) -> None:
    """A slow network would be tested with a fast one."""
    with client(proxy) as connection:
        ask(connection)
        proxy.latency(0.3)
        begun = time.monotonic()
        assert ask(connection) == b"hello"
        assert 0.3 <= time.monotonic() - begun < 5
        proxy.heal()

        def quick() -> bool:
            begun = time.monotonic()
            ask(connection)
            return time.monotonic() - begun < 0.2

        wait_until(quick)


def test_a_black_hole_takes_everything_and_says_nothing(
    proxy: Proxy, server: Loopback
) -> None:
    """A vanished machine would be tested with one that says it goes."""
    with client(proxy) as old:
        ask(old)
        proxy.black_hole()
        assert is_silent(old)
        with client(proxy) as new:
            assert is_silent(new)
            server.close()
            assert is_silent(old)
            assert is_silent(new)
    wait_until(lambda: proxy.connections == 0)


def test_silence_is_for_good_and_for_those_there_only(proxy: Proxy) -> None:
    """A half-open connection would be tested with one that wakes up again."""
    with client(proxy) as connection:
        ask(connection)
        proxy.silence()
        assert works(proxy)
        proxy.heal()
        assert is_silent(connection)


def test_reset_is_a_reset(proxy: Proxy) -> None:
    """A crash would be tested with an orderly end."""
    with client(proxy) as connection:
        ask(connection)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionResetError), client(proxy) as connection:
        ask(connection)
    proxy.heal()
    assert works(proxy)


def test_refuse_keeps_the_port(proxy: Proxy) -> None:
    """A server that is down would be tested with one that is only slow."""
    with client(proxy) as connection:
        ask(connection)
        for _ in range(3):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                client(proxy)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", proxy.port))
            proxy.heal()
            assert works(proxy)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_lost_reply_is_the_right_one(serve: Serve) -> None:
    """A request that never arrived would pass for one whose answer was lost."""
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            seen.append(data)
            connection.sendall(data)

    with Proxy("127.0.0.1", serve(talk).port) as proxy:
        proxy.lose_replies(match=b"/write")
        with client(proxy) as connection:
            assert ask(connection, b"GET /read") == b"GET /read"
            with pytest.raises(ConnectionResetError):
                ask(connection, b"PUT /write 1")
        assert seen[-1] == b"PUT /write 1"
        assert proxy.lost == 1
        with client(proxy) as connection:
            assert ask(connection, b"PUT /write 2") == b"PUT /write 2"


def test_a_lost_reply_may_leave_silence(proxy: Proxy) -> None:
    """A client without a deadline would never be found out."""
    proxy.lose_replies(2, hang=True)
    for lost in 1, 2:
        with client(proxy) as connection:
            assert is_silent(connection)
        assert proxy.lost == lost
    assert works(proxy)


def test_a_match_may_come_in_pieces(proxy: Proxy) -> None:
    """Whether a fault strikes would depend on how the kernel cuts the data."""
    proxy.latency(1)
    proxy.lose_replies(match=b"hello")
    with client(proxy) as connection:
        connection.sendall(b"hel")
        time.sleep(0.02)
        with pytest.raises(ConnectionResetError):
            ask(connection, b"lo")
    assert proxy.lost == 1


def test_an_unreachable_server_is_a_reset(proxy: Proxy, server: Loopback) -> None:
    """A client would wait for a server that is not there."""
    server.close()
    with pytest.raises(ConnectionResetError), client(proxy) as connection:
        ask(connection)
    wait_until(lambda: proxy.connections == 0)


def test_closing_ends_all(server: Loopback) -> None:
    """One test's connections and threads would live on into the next."""
    with Proxy("127.0.0.1", server.port) as proxy:
        connections = [client(proxy) for _ in range(20)]
        proxy.black_hole()
    for connection in connections:
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        client(proxy)
    proxy.close()
    wait_until(lambda: server.idle)

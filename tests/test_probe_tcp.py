"""What an accepted TCP connection says of a service."""

from __future__ import annotations

import socket

import pytest

from integration.support.loopback import (
    Loopback,
    Serve,
    Talk,
    hanging,
    reset_at_close,
    unused_port,
)
from integration.support.probing import ask, flooding

ACCEPTS = (True, "accepts connections")


def tcp(server: Loopback) -> str:
    return f"tcp://127.0.0.1:{server.port}"


def test_tcp_is_up_if_the_connection_is_kept(serve: Serve) -> None:
    """Services without HTTP could not be watched."""
    server = serve(hanging)
    assert ask(tcp(server)) == ACCEPTS
    assert ask(f"tcp://localhost:{server.port}") == ACCEPTS


def test_tcp_over_ipv6() -> None:
    """A service on IPv6 could not be watched."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert ask(f"tcp://[::1]:{server.getsockname()[1]}") == ACCEPTS


def test_a_port_that_answers_itself_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP connects a free ephemeral port to itself now and then: a node that is not
    even started would give its turn away."""

    real = socket.socket.connect_ex

    def connect_ex(sock: socket.socket, place: tuple[str, int]) -> int:
        sock.bind(place)
        return real(sock, place)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    for scheme in "tcp", "http":
        result = ask(f"{scheme}://127.0.0.1:{unused_port()}")
        assert result == (False, "connection refused")


def saying(words: bytes, *, ending: Talk | None = None) -> Talk:
    """Greet, and then end as told or wait for the client."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(words)
        (ending or hanging)(connection)

    return talk


def hanging_up(connection: socket.socket) -> None:
    """Close without waiting for anything."""


def kicking_out(connection: socket.socket) -> None:
    """Reset the connection."""
    reset_at_close(connection)


BLOCKED = (
    b"J\x00\x00\x00\xffi\x04Host '172.17.0.1' is blocked because of many connection "
    b"errors; unblock with 'mariadb-admin flush-hosts'"
)


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (hanging_up, "accepted, then closed at once"),
        (kicking_out, "accepted, then reset at once"),
        (
            saying(b"-ERR max number of clients reached\r\n", ending=hanging_up),
            "accepted, then closed at once, saying: ERR max number of clients reached",
        ),
        (
            saying(BLOCKED, ending=hanging_up),
            "accepted, then closed at once, saying: Host '172.17.0.1' is blocked "
            "because of many connection errors; unblock with 'mariadb-admin "
            "flush-hosts'",
        ),
        (saying(b"\xff\x00\x1b\x01" * 9, ending=hanging_up), "closed at once"),
    ],
)
def test_a_connection_that_the_peer_ends_at_once_is_down(
    serve: Serve, talk: Talk, said: str
) -> None:
    """docker-proxy accepts while nothing listens inside, and a database that has locked
    this host out does, too: the turn would pass on."""
    ok, reason = ask(tcp(serve(talk)))
    assert not ok
    assert reason.endswith(said)
    assert reason.isprintable()


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00" * 200_000])
def test_a_service_that_greets_is_up(serve: Serve, words: bytes) -> None:
    """A database that speaks first could not be watched."""
    assert ask(tcp(serve(saying(words)))) == ACCEPTS


def test_a_service_that_never_stops_talking_is_up(serve: Serve) -> None:
    """Its probe would read for ever, or into the memory."""
    assert ask(tcp(serve(flooding(b"", [], reads=False)))) == ACCEPTS


def test_the_look_is_within_the_timeout(serve: Serve) -> None:
    """A --timeout of 100 ms would never find anything up."""
    assert ask(tcp(serve(hanging)), 0.1) == ACCEPTS

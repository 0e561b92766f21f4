"""One deadline for a whole call, and one way to stop."""

from __future__ import annotations

import os
import socket
import threading
from operator import le

import pytest

from integration.support.commands import HANG, wait_until
from integration.support.loopback import (
    Loopback,
    Serve,
    answering,
    dripping,
    hanging,
    status,
)
from service_monitor.errors import LocalLack
from service_monitor.net.calls import Bounds, adopt, bounded
from service_monitor.net.http import new_session
from service_monitor.timing import now


def connected(server: Loopback) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port))


def receive(server: Loopback) -> bytes:
    """Read from a connection that goes down with the call."""
    with connected(server) as sock:
        adopt(sock)
        return sock.recv(1)


def test_passes_results_and_errors_on(bounds: Bounds) -> None:
    """An answer would get lost, or a failure pass for one."""
    assert bounded(lambda: 7, HANG, bounds) == 7
    with pytest.raises(KeyError):
        bounded(lambda: {"a": 1}["b"], HANG, bounds)
    with pytest.raises(SystemExit):
        bounded(lambda: exit(3), HANG, bounds)


@pytest.mark.parametrize("waits", [True, False])
def test_what_nothing_interrupts_is_left_behind(
    bounds: Bounds, release: threading.Event, waits: bool
) -> None:
    """A dead name server would block every node for its own timeout, not for ours."""
    begun = now()
    with pytest.raises(TimeoutError, match="no answer in time"):
        bounded(lambda: release.wait(HANG), 0.1, bounds, waits=waits)
    assert 0.1 <= now() - begun < HANG / 2


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_a_drip_does_not_stretch_the_deadline(
    bounds: Bounds, serve: Serve, start: bytes, drop: bytes
) -> None:
    """`requests` starts its timeout anew with each byte and would wait for ever."""
    server = serve(dripping(start, drop))
    with new_session() as session, pytest.raises(TimeoutError):
        bounded(lambda: session.get(server.url), 0.3, bounds)
    wait_until(lambda: server.connections > 0 and server.idle)


def test_the_sockets_go_down_with_the_call(bounds: Bounds, serve: Serve) -> None:
    """Each call that timed out would leave a thread and a connection for ever."""
    server = serve(hanging)
    with pytest.raises(TimeoutError):
        bounded(lambda: receive(server), 0.1, bounds)
    wait_until(lambda: server.connections > 0 and server.idle)


def test_a_socket_that_comes_too_late_goes_down_too(
    bounds: Bounds, serve: Serve, release: threading.Event
) -> None:
    """A resolver that wakes up late would send a request that nobody waits for."""
    server, got = serve(hanging), []

    def late() -> None:
        release.wait(HANG)
        got.append(receive(server))

    with pytest.raises(TimeoutError):
        bounded(late, 0.05, bounds)
    release.set()
    wait_until(lambda: bool(got))
    assert got == [b""]


def test_a_kept_connection_goes_down_too(bounds: Bounds, serve: Serve) -> None:
    """Only the first call over a connection would be bounded."""

    def talk(connection: socket.socket) -> None:
        answering(status("200 OK", body=b"x"))(connection)
        hanging(connection)

    server = serve(talk)
    with new_session() as session:
        bounded(lambda: session.get(server.url), HANG, bounds)
        with pytest.raises(TimeoutError):
            bounded(lambda: session.get(server.url), 0.2, bounds)
        wait_until(lambda: server.idle)
    assert server.connections == 1


def test_a_connection_outlives_the_calls_that_used_it(
    bounds: Bounds, serve: Serve
) -> None:
    """Each request to the store would cost a new connection."""

    def talk(connection: socket.socket) -> None:
        for _ in range(3):
            answering(status("200 OK", body=b"x"))(connection)

    server = serve(talk)
    with new_session() as session:
        for _ in range(3):
            answer = bounded(lambda: session.get(server.url), HANG, bounds)
            assert answer.text == "x"
    assert server.connections == 1


def resources() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("answers", [False, True])
def test_nothing_is_left_of_many_calls(
    bounds: Bounds, serve: Serve, answers: bool
) -> None:
    """A `watch` of a service that hangs would run out of files within a day."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    address = listener.getsockname()

    def call() -> None:
        with socket.create_connection(address, HANG) as sock:
            adopt(sock)
            if not answers:
                sock.recv(1)

    before = resources()
    for _ in range(200):
        if answers:
            bounded(call, HANG, bounds)
        else:
            with pytest.raises(TimeoutError):
                bounded(call, 0.005, bounds)
        listener.accept()[0].close()
    wait_until(lambda: all(map(le, resources(), before)))
    listener.close()


def test_no_thread_to_be_had_is_an_error_like_others(
    bounds: Bounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container at its limit of processes would lose its `watch` for good."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(LocalLack, match="lacks threads or processes"):
        bounded(lambda: 1, HANG, bounds)


def test_a_socket_outside_of_a_call_is_nobodys_business(serve: Serve) -> None:
    """Connections of other threads would go down with some call."""
    with connected(serve(hanging)) as sock:
        adopt(sock)
        sock.sendall(b"x")

"""A probe has one deadline for everything, and reads no more than it needs."""

from __future__ import annotations

import gzip
import resource
import socket
import threading
import time
import tracemalloc

import pytest

from integration.support.commands import HANG, wait_until
from integration.support.loopback import (
    Serve,
    Talk,
    answering,
    dripping,
    hanging,
    status,
)
from integration.support.probing import OK, ask, flooding
from service_monitor.errors import Stopped
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import MOST_READ, Target, new_probe
from service_monitor.timing import now

# one deadline


@pytest.mark.parametrize(
    "talk",
    [
        hanging,
        dripping(b"", b"H"),
        dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.02),
        dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        dripping(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"
        ),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1"),
    ],
)
def test_a_slow_service_costs_the_timeout_and_no_more(serve: Serve, talk: Talk) -> None:
    """One drip would blind `watch` for ever, and its record lapse or lie."""
    begun, server = now(), serve(talk)
    assert ask(server.url, 0.3) == (False, "no answer within 0.3 s")
    assert 0.29 <= now() - begun < HANG / 2
    wait_until(lambda: server.connections > 0 and server.idle)


@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
def test_a_black_hole_costs_the_timeout(serve: Serve, scheme: str) -> None:
    """A full backlog or a firewall that drops would blind `watch`."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = []
        for _ in range(8):  # nobody accepts: after a few the kernel drops
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        time.sleep(0.05)
        result = ask(f"{scheme}://127.0.0.1:{address[1]}", 0.3)
        assert result == (False, "no answer within 0.3 s")
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_a_dead_name_server_costs_the_timeout(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """The resolver tries for 10 s and more, and no socket timeout bounds it."""
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(HANG)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begun = now()
    assert ask(f"{scheme}://es-1:1", 0.2) == (False, "no answer within 0.2 s")
    assert now() - begun < HANG / 2
    release.set()


def test_a_stop_ends_a_probe_at_once(serve: Serve) -> None:
    """`systemctl stop` would wait for the slowest service."""
    bounds, begun = Bounds(), now()
    asking = new_probe(Target(read_monitored_url(serve(hanging).url), HANG), bounds)
    timer = threading.Timer(0.1, bounds.stop.request)
    timer.start()
    with pytest.raises(Stopped):
        asking()
    assert now() - begun < HANG / 2
    timer.join()


# no more is read than needed


@pytest.mark.parametrize("start", [b"\r\n", b"Content-Length: 99999999999\r\n\r\n"])
def test_an_endless_body_counts_as_answered(serve: Serve, start: bytes) -> None:
    """A service that serves a dump as its first page would never be up."""
    sent: list[int] = []
    server = serve(flooding(b"HTTP/1.1 200 OK\r\n" + start, sent))
    assert ask(server.url) == (True, "200 OK")
    server.close()
    assert sum(sent) < 50 * 1024 * 1024  # what fits into the kernel's buffers


def test_a_redirect_is_an_answer_however_long_its_body(serve: Serve) -> None:
    """It would pass for no answer, after the whole timeout, and fill the memory."""
    sent: list[int] = []
    start = b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"
    server = serve(flooding(start, sent))
    assert ask(server.url) == (False, "302 Found, a redirect is not followed")
    server.close()
    assert sum(sent) < 50 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, MOST_READ - 1, MOST_READ, MOST_READ + 1])
def test_a_body_of_any_size_is_an_answer(serve: Serve, size: int) -> None:
    """Some health pages would pass for a failure."""
    server = serve(answering(status("200 OK", body=b"x" * size)))
    assert ask(server.url) == (True, "200 OK")


def test_a_body_cut_off_is_no_answer(serve: Serve) -> None:
    """A service that dies while it answers would hand the turn on."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    ok, reason = ask(serve(answering(head + b"twelve bytes")).url)
    assert not ok
    assert "12 bytes read" in reason


@pytest.mark.parametrize("line", ["200 OK", "302 Found\r\nLocation: /login"])
def test_a_bomb_stays_packed(serve: Serve, line: str) -> None:
    """300 MB of zeros in 300 KB took 600 MB of memory."""
    bomb = gzip.compress(b"\0" * (256 * 1024 * 1024), 9)
    server = serve(answering(status(line, "Content-Encoding: gzip", body=bomb)))
    ask(serve(answering(OK)).url)  # imports what is needed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ok, reason = ask(server.url)
    assert (ok, reason[:3]) == (line == "200 OK", line[:3])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024  # KiB


@pytest.mark.parametrize("names", ["X", "X-%d"])
def test_no_more_of_a_header_is_read_than_of_a_page(serve: Serve, names: str) -> None:
    """A service gone wrong would take `watch` along, at 45 MB for each probe."""
    lines = (names.replace("%d", str(n)) + ": " + "y" * 60_000 for n in range(95))
    server = serve(answering(status("200 OK", *lines)))
    ask(serve(answering(OK)).url)  # imports what is needed
    tracemalloc.start()
    ok, reason = ask(server.url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (ok, reason) == (False, "got more than 131072 bytes of headers")
    assert peak < 2 * 1024 * 1024

"""Is the service up? What counts as an answer of HTTP, and what as up."""

from __future__ import annotations

import os
import socket
import threading

import pytest
import responses

from integration.support.commands import HANG
from integration.support.loopback import (
    Serve,
    Talk,
    answering,
    hanging,
    read_request,
    reset_at_close,
    status,
    unused_port,
)
from integration.support.probing import OK, ask
from service_monitor.net.calls import Bounds
from service_monitor.node import probe
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Target, new_probe

# what counts as up


@pytest.mark.parametrize(
    ("line", "up"),
    [
        ("200 OK", True),
        ("204 No Content", True),
        ("299 Whatever", True),
        ("101 Switching Protocols", False),
        ("301 Moved Permanently", False),
        ("304 Not Modified", False),
        ("401 Unauthorized", False),
        ("404 Not Found", False),
        ("500 Internal Server Error", False),
        ("503 Service Unavailable", False),
        ("999 Weird", False),
    ],
)
def test_up_means_2xx(serve: Serve, line: str, up: bool) -> None:
    """A node that answers 503 while it boots would let the next one start."""
    assert ask(serve(answering(status(line))).url) == (up, line)


@responses.activate
@pytest.mark.parametrize("code", [200, 201, 226, 300, 308, 400, 429, 502])
def test_only_the_first_digit_counts(code: int) -> None:
    """Health pages with unusual codes would be misread."""
    responses.get("http://service/health", status=code)
    assert ask("http://service/health").ok is (code < 300)


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """A login page would pass for the service."""
    healthy = serve(answering(OK))
    server = serve(answering(status("302 Found", f"Location: {healthy.url}")))
    ok, reason = ask(server.url)
    assert not ok
    assert reason == "302 Found, a redirect is not followed"
    assert healthy.connections == 0


def test_the_reason_may_be_missing(serve: Serve) -> None:
    """Servers of HTTP/2 origin leave it out."""
    assert ask(serve(answering(status("204"))).url) == (True, "204")
    assert ask(serve(answering(status("500 "))).url) == (False, "500")


def test_what_a_server_writes_is_tamed(serve: Serve) -> None:
    """A service could forge lines of the log and fill the store."""
    ok, reason = ask(serve(answering(status("200 \x1b[2J" + "x" * 1000))).url)
    assert ok
    assert reason.startswith(r"200 \x1b[2Jxxx")
    assert len(reason) <= probe.LONGEST_REASON + len("...")


# what goes wrong


def test_nobody_listens() -> None:
    """The operator would read a Python object instead of a reason."""
    for scheme in "http", "tcp":
        result = ask(f"{scheme}://127.0.0.1:{unused_port()}")
        assert result == (False, "connection refused")


def resetting(connection: socket.socket) -> None:
    read_request(connection)
    reset_at_close(connection)


def closing(connection: socket.socket) -> None:
    read_request(connection)


OK_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = b"\x16\x03\x01\x02\x00\x01" + os.urandom(200) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (resetting, "connection reset by peer"),
        (closing, "remote end closed connection"),
        (answering(GARBAGE), ""),
        (
            answering(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
            "no HTTP answer: SSH-2.0-OpenSSH_9.6",
        ),
        (answering(b"\r\n\r\n"), "no HTTP answer"),
        (answering(b"\x15\x03\x01\0\2\2F"), "speaks TLS: write https:// for it"),
        (answering(b"HTTP/1.1 abc\r\n\r\n"), "abc"),
        (answering(b"HTTP/1.1 200 O"), "breaks off in its first line"),
        (answering(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"), "NUL"),
        (answering(b"hello\n"), "hello"),  # HTTP/0.9
        (answering(b"HTTP/3.0 200 OK\r\n\r\n"), "HTTP/3.0"),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000), "header line"),
        (answering(b"HTTP/1.1 200 " + b"y" * 200_000), "status line"),
        (answering(OK.replace(b"Length: 0", b"Length: 9")), "9 more expected"),
        (
            answering(status("200 OK", "Transfer-Encoding: chunked", body=b"zz")),
            "length",
        ),
        (answering(OK_CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"), "length"),
        (answering(OK_CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), "longer"),
        (answering(OK_CHUNKED + b"3\r\nabc\r\n"), "IncompleteRead"),
    ],
)
def test_what_is_no_answer_is_down(serve: Serve, talk: Talk, said: str) -> None:
    """`watch` would die with a traceback, and its service vanish."""
    ok, reason = ask(serve(talk).url)
    assert not ok
    assert said.lower() in reason.lower()
    assert reason
    assert reason.isprintable()
    assert "object at" not in reason


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_a_name_that_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """The reason would be a number of the resolver's."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert ask(f"{scheme}://es-1:1") == (False, "host name not found")


def test_what_this_machine_lacks_is_no_reason_to_die(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container at its limit of processes would lose its `watch` for good."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asking = new_probe(Target(read_monitored_url("tcp://127.0.0.1:1"), HANG), Bounds())
    monkeypatch.setattr(threading.Thread, "start", start)
    ok, reason = asking()
    assert not ok
    assert reason.startswith("this machine lacks threads or processes: raise TasksMax=")


# what every client takes

OK_LINE = b"HTTP/1.1 200 OK\r\n"
REST = b"Content-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"\r\n2\r\nok\r\n0\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
MANY = b"".join(b"X-%d: y\r\n" % number for number in range(1000))


@pytest.mark.parametrize(
    "answer",
    [
        HINTS + OK_LINE + REST,
        HINTS * 3 + OK_LINE + REST,
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK_LINE + REST,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + OK_LINE + REST,
        OK_LINE + b"no header\r\n" + REST,
        OK_LINE + b"From me to you\r\n" + REST,
        OK_LINE + b"two words: z\r\n" + REST,
        OK_LINE + b"X-\xe9: z\r\n" + REST,
        OK_LINE + b": z\r\n" + REST,
        OK_LINE + b"  goes on: nothing\r\n" + REST,
        OK_LINE + b"no header\r\n  goes on\r\n" + REST,
        OK_LINE + b"A: b\r\n  goes on\r\n" + REST,
        OK_LINE + b"A: b\rC d\r\n" + REST,
        OK_LINE + b"A: b\x0b\x0c\x1c\x85\r\n" + REST,
        OK_LINE + b"Content-Length : 2\r\n\r\nok",
        OK_LINE + b"Content-Length: 7\r\n" + REST,
        OK_LINE + b"Content-Length: 2, 2\r\n\r\nok",
        OK_LINE + b"Content-Length: +2\r\n\r\nok",
        OK_LINE + MANY + REST,
        OK_LINE + b"Set-Cookie: \xff=;;;expires=9;=;\r\n" + REST,
        OK_LINE + b"Content-Type: multipart/mixed\r\n" + REST,
        OK_LINE + b'Content-Type: ;;=;charset="\r\n' + REST,
        (OK_LINE + REST).replace(b"\r", b""),
        (OK_LINE + REST).replace(b"\r\n\r\n", b"\r\n\n"),
        b"HTTP/1.1 200\r\n" + REST,
        b"HTTP/1.1   200   OK\r\n" + REST,
        b"http/1.1 200 OK\r\n" + REST,
        b"HTTP/1.0 200 OK\r\n" + REST,
        b"HTTP/2 200 OK\r\n" + REST,
        b"HTTP/2.0 200 OK\r\n" + REST,
        "HTTP/1.1 200 Größe\r\n".encode() + REST,
        OK_LINE + CHUNKED + CHUNKS,
        OK_LINE + CHUNKED + b"Content-Length: 2\r\n" + CHUNKS,
        OK_LINE + b"Content-Length: 2\r\n" + CHUNKED + CHUNKS,
        OK_LINE + CHUNKED * 2 + CHUNKS,
        OK_LINE + CHUNKED.replace(b"chunked", b"chunked, CHUNKED") + CHUNKS,
        OK_LINE + CHUNKED.replace(b"chunked", b"gzip, Chunked") + CHUNKS,
        OK_LINE + CHUNKED + CHUNKS.replace(b"2\r", b"02;a=b\r"),
        OK_LINE + CHUNKED + CHUNKS.replace(b"0\r\n", b"0\r\nTrailer: x\r\n"),
        (OK_LINE + CHUNKED + CHUNKS).replace(b"\r", b""),
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_what_every_client_takes_is_up(
    serve: Serve, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A node would be down whose page opens in curl and in any browser; or each probe
    would log a traceback."""

    def keeping(connection: socket.socket) -> None:  # the end has to be found
        read_request(connection)
        connection.sendall(answer)
        hanging(connection)

    ok, reason = ask(serve(keeping).url, 5)
    assert (ok, reason[:2]) == (True, "20")
    assert caplog.records == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nok",
        OK_LINE + b"\r\n",
        OK_LINE + b"Content-Length: many\r\n\r\nok",
        OK_LINE + b"Transfer-Encoding: identity\r\n\r\nok",
    ],
)
def test_an_answer_without_a_length_ends_with_its_connection(
    serve: Serve, answer: bytes
) -> None:
    """Servers of HTTP/1.0 could not be watched."""
    assert ask(serve(answering(answer)).url) == (True, "200 OK")


def test_hints_alone_are_no_answer(serve: Serve) -> None:
    """A server that only says that it will answer would pass the turn on."""
    assert not ask(serve(answering(HINTS)).url).ok


def test_endless_hints_are_bounded(serve: Serve) -> None:
    """A service gone wrong would keep `watch` reading for the whole timeout."""
    server = serve(answering(HINTS * 9999))
    assert ask(server.url) == (False, "got more than 131072 bytes of headers")

"""Is the service up? One question, one deadline, whatever answers."""

from __future__ import annotations

import base64
import gzip
import http.cookiejar
import os
import resource
import socket
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import responses

from integration.support.certificates import Certificates
from integration.support.commands import HANG, wait_until
from integration.support.loopback import (
    Loopback,
    Serve,
    Talk,
    answering,
    dripping,
    hanging,
    read_request,
    reset_at_close,
    status,
    unused_port,
)
from service_monitor.errors import Stopped
from service_monitor.net.calls import Stop
from service_monitor.node import probe
from service_monitor.node.probe import MOST_READ, Result, Target, new_probe
from service_monitor.timing import now

OK = status("200 OK")
Header = dict[str, str]


def ask(url: str, timeout: float = HANG, **how: object) -> Result:
    """Probe once."""
    return new_probe(Target(url, timeout, **how), Stop())()  # type: ignore[arg-type]


def headers_of(request: bytes) -> Header:
    lines = request.decode("latin-1").split("\r\n")[1:-2]
    return dict(line.split(": ", 1) for line in lines)


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

    asking = new_probe(Target("tcp://127.0.0.1:1", HANG), Stop())
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
    stop, begun = Stop(), now()
    asking = new_probe(Target(serve(hanging).url, HANG), stop)
    timer = threading.Timer(0.1, stop.request)
    timer.start()
    with pytest.raises(Stopped):
        asking()
    assert now() - begun < HANG / 2
    timer.join()


# no more is read than needed


def flooding(start: bytes, sent: list[int], *, reads: bool = True) -> Talk:
    """Answer without end, and keep count."""

    def talk(connection: socket.socket) -> None:
        if reads:
            read_request(connection)
        connection.sendall(start)
        while True:
            sent.append(connection.send(b"x" * 65536))

    return talk


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


# what is sent


def test_asks_plainly(serve: Serve) -> None:
    """Servers would keep connections open, compress, or take us for a browser."""
    requests: list[bytes] = []
    ask(serve(answering(OK, requests)).url + "_cluster/health?local=true")
    assert requests[0].startswith(b"GET /_cluster/health?local=true HTTP/1.1\r\n")
    sent = headers_of(requests[0])
    assert sent.pop("Host").startswith("127.0.0.1:")
    assert sent == {
        "User-Agent": "service_monitor",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Accept": "*/*",
    }


def test_credentials_of_the_url_are_sent_decoded(serve: Serve) -> None:
    """A password with an @ in it would not let us in."""
    requests: list[bytes] = []
    url = serve(answering(OK, requests)).url.replace("//", "//us%3Aer:p%40ss%E2%82%AC@")
    assert ask(url).ok
    kind, _, token = headers_of(requests[0])["Authorization"].partition(" ")
    assert kind == "Basic"
    assert base64.b64decode(token).decode() == "us:er:p@ss€"
    assert b"p%40" not in requests[0]


def test_an_at_sign_after_the_host_is_no_password(serve: Serve) -> None:
    """The probe would ask another host, or send half of its query as a password."""
    requests: list[bytes] = []
    server = serve(answering(OK, requests))
    assert ask(f"{server.url}x@y?mail=a:b@c").ok
    assert requests[0].startswith(b"GET /x@y?mail=a:b@c HTTP/1.1\r\n")
    assert b"Authorization" not in requests[0]


@pytest.mark.parametrize("zone", ["eth0", "cali9", "bat0", "ED0", "a_b", "2", "25g"])
@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
def test_the_zone_of_an_address_is_ours_alone(
    serve: Serve,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    zone: str,
) -> None:
    """A service that listens on a link-local address would never be up.

    Nor would one on an interface whose name begins like an escape.
    """
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(7, zone)])
    requests: list[bytes] = []
    tls = certificates.server_context() if scheme == "https" else None
    server = serve(hanging if scheme == "tcp" else answering(OK, requests), tls=tls)
    asked: list[object] = []
    resolve = socket.getaddrinfo

    def here(host: object, port: int, *args: Any, **settings: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", port, *args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    url = f"{scheme}://[fe80::1%25{zone}]:{server.port}"
    assert ask(url, insecure=True).ok
    assert asked[0] == "fe80::1%7"
    if scheme != "tcp":
        assert headers_of(requests[0])["Host"] == f"[fe80::1]:{server.port}"


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_an_interface_that_is_not_there_is_named(scheme: str) -> None:
    """A name server would be looked at, for "host name not found"."""
    found = ask(f"{scheme}://[fe80::1%25nosuch0]:9200")
    assert (found.ok, found.reason) == (False, "there is no interface nosuch0 here")


def test_a_zone_does_not_change_the_host_that_was_given(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--header='Host: ...' would be overridden."""
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(7, "eth0")])
    requests: list[bytes] = []
    server = serve(answering(OK, requests))
    resolve: Any = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *a, **s: resolve("127.0.0.1", *a, **s)
    )
    url = f"http://[fe80::1%25eth0]:{server.port}"
    assert ask(url, headers={"host": "es.example"}).ok
    assert requests[0].lower().count(b"\r\nhost: ") == 1
    assert b"es.example" in requests[0]


def test_a_user_may_have_no_password(serve: Serve) -> None:
    """API keys are often given as a user alone."""
    requests: list[bytes] = []
    assert ask(serve(answering(OK, requests)).url.replace("//", "//key@")).ok
    token = headers_of(requests[0])["Authorization"].partition(" ")[2]
    assert base64.b64decode(token) == b"key:"


def test_headers_are_sent(serve: Serve) -> None:
    """A service behind a token would never be up."""
    requests: list[bytes] = []
    headers = {"Authorization": "Bearer x", "Host": "es.example", "accept": "text/html"}
    assert ask(serve(answering(OK, requests)).url, headers=headers).ok
    sent = headers_of(requests[0])
    assert sent["Authorization"] == "Bearer x"
    assert sent["Host"] == "es.example"
    assert {"accept": "text/html"}.items() <= {
        k.lower(): v for k, v in sent.items()
    }.items()
    assert requests[0].lower().count(b"\r\naccept:") == 1


def test_a_password_is_in_no_reason(caplog: pytest.LogCaptureFixture) -> None:
    """`status` and the log would tell it to everybody."""
    url = f"http://user:s3cret@127.0.0.1:{unused_port()}/"
    caplog.set_level("DEBUG")
    assert ask(url) == (False, "connection refused")
    assert "s3cret" not in caplog.text


def test_cookies_are_not_kept(serve: Serve) -> None:
    """A session of the first probe would hide that nobody else can log in."""
    requests: list[bytes] = []
    server = serve(answering(status("200 OK", "Set-Cookie: a=b; Path=/"), requests))
    asking = new_probe(Target(server.url, HANG), Stop())
    assert asking().ok
    assert asking().ok
    assert b"Cookie" not in requests[1]


def test_the_cookie_jar_could_have_kept_them() -> None:
    """The test above would pass for a reason of its own."""
    assert http.cookiejar.DefaultCookiePolicy().is_not_allowed("127.0.0.1") is False


def test_proxies_and_netrc_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy's error page, or its health, would pass for the service's."""
    proxy, requests = serve(answering(OK)), list[bytes]()
    for name in "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY":
        monkeypatch.setenv(name, proxy.url)
    (tmp_path / ".netrc").write_text("default login user password s3cret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve(answering(status("503 Service Unavailable"), requests))
    assert ask(server.url) == (False, "503 Service Unavailable")
    assert proxy.connections == 0
    assert b"Authorization" not in requests[0]


def test_each_probe_connects_anew(serve: Serve) -> None:
    """A kept connection says up although nobody listens any more, or is closed just
    when the next probe is sent, and says down."""

    def keeping(connection: socket.socket) -> None:
        while True:
            answering(OK)(connection)

    server = serve(keeping)
    asking = new_probe(Target(server.url, HANG), Stop())
    assert asking().ok
    assert asking().ok
    assert server.connections == 2


# TLS


def test_a_certificate_of_the_given_ca(
    serve: Serve, certificates: Certificates
) -> None:
    """A service with a CA of its own could not be watched."""
    server = serve(answering(OK), tls=certificates.server_context())
    assert ask(server.url, ca=certificates.ca) == (True, "200 OK")


@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_of_somebody_else(
    serve: Serve, certificates: Certificates, strangers: Certificates, known: bool
) -> None:
    """Anybody in between could answer for the service."""
    server = serve(answering(OK), tls=certificates.server_context())
    ok, reason = ask(server.url, ca=strangers.ca if known else None)
    assert not ok
    assert reason.startswith("certificate not accepted: ")


def test_a_certificate_of_another_host(
    serve: Serve, certificates: Certificates
) -> None:
    """A certificate of the same CA for another host would do."""
    server = serve(answering(OK), tls=certificates.server_context())
    url = server.url.replace("127.0.0.1", "127.0.0.2")
    ok, reason = ask(url, ca=certificates.ca)
    assert not ok
    assert reason


def test_insecure_takes_any_certificate(
    serve: Serve, certificates: Certificates, recwarn: pytest.WarningsRecorder
) -> None:
    """--insecure would do nothing, or warn at each probe."""
    server = serve(answering(OK), tls=certificates.server_context())
    assert ask(server.url, insecure=True) == (True, "200 OK")
    assert not recwarn.list


def test_the_environment_brings_no_ca(
    serve: Serve, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable set for another program would decide whom we trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates.ca)
    monkeypatch.setenv("CURL_CA_BUNDLE", certificates.ca)
    server = serve(answering(OK), tls=certificates.server_context())
    assert not ask(server.url).ok


def test_http_where_tls_is_spoken(serve: Serve, certificates: Certificates) -> None:
    """A wrong scheme would be a riddle."""
    secure = serve(answering(OK), tls=certificates.server_context())
    assert not ask(secure.url.replace("https", "http"), HANG).ok
    plain = serve(answering(OK))
    ok, reason = ask(plain.url.replace("http", "https"), 0.5)
    assert not ok
    assert reason


def test_a_handshake_that_hangs_costs_the_timeout(serve: Serve) -> None:
    """TLS would stand outside of the deadline."""
    server = serve(hanging)
    ok, reason = ask(server.url.replace("http", "https"), 0.3, insecure=True)
    assert (ok, reason) == (False, "no answer within 0.3 s")


def test_a_drip_inside_of_tls_costs_the_timeout(
    serve: Serve, certificates: Certificates
) -> None:
    """The sockets of TLS would not go down with the call."""
    talk = dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x")
    server = serve(talk, tls=certificates.server_context())
    assert not ask(server.url, 0.3, ca=certificates.ca).ok
    wait_until(lambda: server.connections > 0 and server.idle)


# tcp


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

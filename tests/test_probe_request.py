"""What a probe sends: plain requests, credentials, headers, no cookies, no proxy."""

from __future__ import annotations

import base64
import http.cookiejar
import socket
from pathlib import Path
from typing import Any

import pytest

from integration.support.certificates import Certificates
from integration.support.commands import HANG
from integration.support.loopback import Serve, answering, hanging, status, unused_port
from integration.support.probing import OK, ask, headers_of
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Target, new_probe


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
    asking = new_probe(Target(read_monitored_url(server.url), HANG), Bounds())
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
    asking = new_probe(Target(read_monitored_url(server.url), HANG), Bounds())
    assert asking().ok
    assert asking().ok
    assert server.connections == 2

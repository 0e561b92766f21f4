"""What no waiting lifts is refused, with the words that came, the cause, the remedy."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from integration.support.certificates import Certificates
from integration.support.gateway import HEADER, LOGIN, Gateway, Handler
from integration.support.loopback import (
    Loopback,
    Serve,
    answering,
    at_last,
    hanging,
    read_request,
    reset_at_close,
    status,
    unused_port,
)
from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v2 import Etcd2Store
from service_monitor.stores.etcd.v3 import Etcd3Store

RECORD = Record("k", "v", 3, 4, 99)
COMMON_NAME = (
    "CommonName of client sending a request against gateway will be ignored and not "
    "used as expected\n"
)
PAGE = "<html><head><style>h1 {x}</style></head><h1>{} nginx</h1></html>"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.close()


def answer(gateway: Gateway, code: int, body: Any, **headers: str) -> Etcd3Store:
    """Give a store whose every request gets this answer."""

    def before(handler: Handler) -> bool:
        handler.reply(code, body, **headers)
        return True

    gateway.before = before
    return gateway.store(user=None, password=None)


NOT_FOUND = {"code": 5, "message": "Not Found", "details": []}
NO_METHOD = {"code": 12, "message": "Method Not Allowed"}
NO_ROUTE = {"message": "no Route matched with those values"}
ELASTIC = {"error": "no handler found for uri [/v3/kv/range]", "status": 400}
ALL_CAUSES = (
    "3.4 or later",
    "enable-grpc-gateway",
    "v2 only",
    "--listen-client-http-urls",
    "proxy",
    "etcd at all",
)


@pytest.mark.parametrize(
    ("code", "body", "says"),
    [
        (
            400,
            COMMON_NAME,
            ["HTTP 400: CommonName of", "without a Common Name"],
        ),
        (404, "404 page not found", ALL_CAUSES),
        (404, NOT_FOUND, ALL_CAUSES),  # as grpc-gateway of etcd 3.6 has it
        (404, NO_ROUTE, ["no Route matched", *ALL_CAUSES]),
        (404, PAGE.replace("{}", "404"), ["HTTP 404: 404 nginx", *ALL_CAUSES]),
        (405, "Method Not Allowed", ALL_CAUSES),
        (501, NO_METHOD, ["Method Not Allowed", *ALL_CAUSES]),
        (400, ELASTIC, ["HTTP 400", "no handler found"]),
        (400, "Client sent an HTTP request to an HTTPS server.\n", ["use etcds://"]),
        (403, "Forbidden by the mesh", ["HTTP 403: Forbidden by the mesh"]),
        (401, PAGE.replace("{}", "401"), ["HTTP 401: 401 nginx"]),
        (407, "", ["HTTP 407"]),
        (413, "too big\x1b[2J", [r"too big\x1b[2J"]),
        (200, PAGE.replace("{}", "hello"), ["not an answer of etcd", "hello nginx"]),
        (400, {"code": 3, "message": "bad \n thing"}, ["bad thing"]),
        (400, {"code": 11, "message": "out of range"}, ["out of range"]),
    ],
)
def test_a_refusal_shows_what_was_said(
    gateway: Gateway, code: int, body: Any, says: list[str]
) -> None:
    """An operator would look for a network fault, or upgrade an etcd that is new, and
    a start would wait to its timeout (etcd#17025, #12093)."""
    store = answer(gateway, code, body)
    for call in (
        lambda: store.list("es/"),
        lambda: store.wait("k", Snapshot((), 7), 5.0),
    ):
        with pytest.raises(StoreRefused) as refused:
            call()
        text = str(refused.value)
        assert text.startswith(str(gateway.endpoint))
        assert [part for part in says if part not in text] == []


def test_a_refusal_names_the_operation(gateway: Gateway) -> None:
    """Nobody would know whether reading or writing is not allowed."""
    store = answer(gateway, 400, "no")
    for call, doing in (
        (lambda: store.list("es/"), "cannot read"),
        (lambda: store.delete(RECORD), "cannot write"),
        (lambda: store.create("k", "v", 15), "cannot grant a lease"),
        (lambda: store.keep_alive(RECORD, 15), "cannot renew a lease"),
        (lambda: store.wait("k", Snapshot((), 7), 5.0), "cannot watch"),
    ):
        with pytest.raises(StoreRefused, match=f"{doing}: HTTP 400: no"):
            call()


@pytest.mark.parametrize(
    ("code", "body", "says"),
    [
        (500, PAGE.replace("{}", "500"), "HTTP 500: 500 nginx"),
        (502, "Bad Gateway", "HTTP 502: Bad Gateway"),
        (503, "", "HTTP 503"),
        (503, NO_ROUTE, "HTTP 503: .*no Route"),
        (429, "slow down", "HTTP 429: slow down"),
        (408, "", "HTTP 408"),
        (400, {"code": 9, "message": "etcdserver: not leader"}, "not leader"),
        (
            429,
            {"code": 8, "message": "etcdserver: mvcc: database space exceeded"},
            "sp",
        ),
        (200, "", "an empty answer"),
    ],
)
def test_an_outage_shows_what_was_said(
    gateway: Gateway, code: int, body: Any, says: str
) -> None:
    """A start would end although a moment later the store serves it."""
    store = answer(gateway, code, body)
    with pytest.raises(StoreUnavailable, match=says):
        store.list("es/")


def test_what_was_said_is_short(gateway: Gateway) -> None:
    """A page of a proxy would fill the log at each try."""
    for code, body in ((400, "x" * 10**6), (500, "<b>" * 10**5), (200, "y" * 10**5)):
        with pytest.raises(StoreError) as failed:
            answer(gateway, code, body).list("es/")
        assert len(str(failed.value)) < 400


@pytest.mark.parametrize("code", [200, 400, 404, 502])
def test_an_echo_gives_no_secret_away(gateway: Gateway, code: int) -> None:
    """A proxy that quotes the request would put password and token into every log."""
    secret = 'pass"wörd€'

    def echo(handler: Handler) -> bool:
        if code == 404 and handler.path == LOGIN:
            handler.reply(200, {"header": {}, "token": "t0ken"})
            return True
        body = {"body": handler.body, "token": handler.headers["Authorization"]}
        handler.reply(code, body)
        return True

    gateway.before = echo
    with pytest.raises(StoreError) as failed:
        gateway.store(password=secret).list("es/")
    assert "***" in str(failed.value)
    for shown in secret, json.dumps(secret)[1:-1], "t0ken":
        assert shown not in str(failed.value)


def basic(request: bytes) -> bytes:
    return request[request.lower().index(b"authorization") :]


def test_an_echo_gives_no_secret_of_v2_away(serve: Serve) -> None:
    """The header holds user and password, hardly hidden."""

    def echo(connection: socket.socket) -> None:
        connection.sendall(status("400 Bad", body=basic(read_request(connection))))

    endpoint = Endpoint("http", "127.0.0.1", serve(echo).port)
    with pytest.raises(StoreRefused) as failed:
        Etcd2Store([endpoint], Access(user="u", password="s3cret"), Bounds()).list(
            "es/"
        )
    assert "***" in str(failed.value)
    assert "dTpzM2NyZXQ" not in str(failed.value)


def test_a_redirect_is_named(gateway: Gateway) -> None:
    """The operator would not see that a proxy sends us elsewhere."""
    store = answer(gateway, 301, "", Location="https://etcd.example/v3/kv/range")
    with pytest.raises(StoreRefused, match=r"HTTP 301, to https://etcd\.example"):
        store.list("es/")


def test_a_redirect_is_named_without_what_it_quotes(gateway: Gateway) -> None:
    """A login page is often told in its own URL what was asked for, and how."""
    location = "https://u:s3cret@sso.example/login?from=Basic%20dTpzM2NyZXQ%3D"
    store = answer(gateway, 302, "", Location=location)
    where = re.escape("to https://u:***@sso.example/login: name that")
    with pytest.raises(StoreRefused, match=where) as refused:
        store.list("es/")
    assert "from=" not in str(refused.value)


@pytest.mark.parametrize("store", [Etcd3Store, Etcd2Store])
def test_the_zone_of_an_address_may_look_like_an_escape(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    store: type[Etcd3Store] | type[Etcd2Store],
) -> None:
    """An etcd behind an interface called cali9 would never be found."""
    answer(gateway, 200, HEADER)
    resolve, asked = socket.getaddrinfo, []

    def here(host: str, port: int, *args: Any, **settings: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", port, *args, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(7, "cali9")])
    endpoint = Endpoint("http", "[fe80::1%cali9]", gateway.endpoint.port)
    with suppress(StoreRefused):  # a v2 API it is not
        store([endpoint], Access(), Bounds()).list("es/")
    assert asked[0] == "fe80::1%7"


def test_one_address_that_is_no_etcd_does_not_hide_the_others(
    gateway: Gateway, serve: Serve
) -> None:
    """A typing error in one of three addresses would end every start."""
    # It says that it closes: a kept connection may be cut just when it is used again.
    gone = status("404 Not Found", "Connection: close", body=b"404 page not found")
    page = serve(answering(gone))
    wrong = Endpoint("http", "127.0.0.1", page.port)
    answer(gateway, 200, HEADER)
    store = Etcd3Store([wrong, gateway.endpoint], Access(), Bounds())
    assert store.list("es/").records == ()
    assert page.connections == 1
    away = Endpoint("http", "127.0.0.1", unused_port())
    with pytest.raises(StoreUnavailable, match=r"3\.4 or later.*; .*refused"):
        Etcd3Store([wrong, away], Access(), Bounds()).list("es/")
    with pytest.raises(StoreRefused, match=r"3\.4 or later"):
        Etcd3Store([wrong, wrong], Access(), Bounds()).list("es/")


# connections


def on(server: Loopback, scheme: str = "http", **access: Any) -> Etcd3Store:
    return Etcd3Store(
        [Endpoint(scheme, "127.0.0.1", server.port)], Access(**access), Bounds()
    )


def resetting(connection: socket.socket) -> None:
    connection.recv(1)
    reset_at_close(connection)


def version_only(connection: socket.socket) -> None:
    """Hang up on TLS as etcd does, and answer a plain GET."""
    connection.settimeout(2.0)
    if connection.recv(4) == b"GET ":
        connection.recv(65536)
        connection.sendall(status("200 OK", body=b"{}"))


def closing(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize("talk", [resetting, closing, read_request])
def test_a_port_that_hangs_up_is_explained(
    serve: Serve, talk: Callable[[socket.socket], object]
) -> None:
    """The gRPC port of an etcd that serves HTTP on another one would be taken for a
    dead network, and so would one for TLS."""
    with pytest.raises(StoreUnavailable) as failed:
        on(serve(talk)).list("es/")  # type: ignore[arg-type]
    for part in "--listen-client-http-urls", "etcds://", "password":
        assert part in str(failed.value)


def test_a_known_port_is_not_explained(serve: Serve) -> None:
    """Each restart of etcd would log a guess at its ports."""
    talks = [
        answering(status("200 OK", body=b'{"header":{"revision":"7"}}')),
        resetting,
    ]
    store = on(serve(lambda connection: talks.pop(0)(connection)))
    store.list("es/")
    with pytest.raises(StoreUnavailable) as failed:
        store.list("es/")
    assert "--listen-client-http-urls" not in str(failed.value)


def test_tls_to_a_plain_port_is_named(serve: Serve) -> None:
    """`etcds://` where `etcd://` belongs would look like an outage."""
    http = serve(at_last(status("400 Bad Request")))
    with pytest.raises(StoreRefused, match="no TLS: use etcd://"):
        on(http, "https").list("es/")
    with pytest.raises(StoreUnavailable, match="a port without TLS"):
        on(serve(closing), "https").list("es/")


def test_plain_to_a_tls_port_is_named(serve: Serve) -> None:
    """`etcd://` where `etcds://` belongs would look like an outage."""
    for alert in b"\x15\x03\x01\x00\x02\x02F", b"\x15\x03\x03\x00\x02\x02\x16":
        with pytest.raises(StoreRefused, match="TLS: use etcds://"):
            on(serve(at_last(alert))).list("es/")
    with pytest.raises(StoreRefused, match=r"no HTTP.*SSH.*etcd at all"):
        on(serve(at_last(b"SSH-2.0-OpenSSH_9.6\r\n"))).list("es/")


@pytest.mark.parametrize("store", [Etcd3Store, Etcd2Store])
def test_a_port_of_the_other_kind_is_refused_at_once(
    serve: Serve, certificates: Certificates, store: type[Etcd3Store | Etcd2Store]
) -> None:
    """A start would wait to its timeout for a port that only hangs up: etcd's does."""
    secured = serve(hanging, tls=certificates.server_context())
    for scheme, server, says in (
        ("http", secured, r"speaks TLS: use etcd2?s://"),
        ("https", serve(version_only), r"speaks no TLS: use etcd2?://"),
    ):
        endpoint = Endpoint(scheme, "127.0.0.1", server.port)
        with pytest.raises(StoreRefused, match=says):
            store([endpoint], Access(), Bounds()).list("es/")


def test_a_certificate_of_another_authority_is_refused(
    serve: Serve, certificates: Certificates, strangers: Certificates
) -> None:
    """A start with the wrong ca= would wait to its timeout for what cannot come."""
    server = serve(answering(b""), tls=certificates.server_context())
    with pytest.raises(StoreRefused, match=r"certificate not accepted.*ca=FILE"):
        on(server, "https", ca=strangers.ca).list("es/")


def test_a_refused_connection_is_an_outage() -> None:
    """A store that is just being restarted would end every start."""
    endpoint = Endpoint("http", "127.0.0.1", unused_port())
    for store in Etcd3Store, Etcd2Store:
        with pytest.raises(StoreUnavailable) as failed:
            store([endpoint], Access(), Bounds()).list("es/")
        assert str(failed.value) == f"{endpoint}: connection refused"

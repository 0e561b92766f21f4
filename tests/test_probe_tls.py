"""Which certificates a probe accepts."""

from __future__ import annotations

import pytest

from integration.support.certificates import Certificates
from integration.support.commands import HANG, wait_until
from integration.support.loopback import Serve, answering, dripping, hanging
from integration.support.probing import OK, ask


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

"""The address of this machine that reaches the store."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

import pytest

from integration.support.commands import HANG
from service_monitor.errors import StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.stores.etcd import endpoints
from service_monitor.stores.etcd.endpoints import Endpoint, Failover
from service_monitor.timing import now

NO_NAME = "no-such-host.invalid"
ONE, TWO, THREE = (Endpoint("http", f"h{n}", 2379) for n in (1, 2, 3))


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve addresses only: no test asks a name server."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **settings: object) -> object:
        if host == NO_NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_finds_the_address_that_reaches_the_store(
    host: str, resolve: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The others would be told a wrong address, or a useless one without a word."""
    if host == "[::1]" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    found = Failover([Endpoint("http", host, 2379)]).local_address(HANG, Bounds())
    assert found == host.strip("[]")
    assert "name this host with --host" in caplog.text


def test_another_address_is_no_matter_for_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each start of a good setup would be followed by a warning."""
    monkeypatch.setattr(endpoints, "local_address", lambda *_: "10.0.0.7")
    with caplog.at_level(logging.INFO):
        assert Failover([ONE]).local_address(HANG, Bounds()) == "10.0.0.7"
    assert caplog.text == ""


def test_a_dead_name_is_no_reason_to_give_up(resolve: None) -> None:
    """One member that left DNS would keep the nodes from starting."""
    endpoints = [Endpoint("http", NO_NAME, 1), Endpoint("http", "127.0.0.1", 1)]
    assert Failover(endpoints).local_address(HANG, Bounds()) == "127.0.0.1"


def test_a_name_server_that_hangs_is_no_reason_to_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`watch` would publish nothing for as long as the first name cannot be asked."""
    release, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        if host == NO_NAME:
            release.wait(HANG)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    endpoints = [Endpoint("http", NO_NAME, 1), Endpoint("http", "127.0.0.1", 1)]
    failover, begun = Failover(endpoints), now()
    assert failover.local_address(1, Bounds()) == "127.0.0.1"
    assert 0.4 < now() - begun < HANG / 2
    assert failover.current == endpoints[1]
    release.set()


def test_says_what_to_do_without_a_route(resolve: None) -> None:
    """The operator would not know that --host helps."""
    with pytest.raises(StoreUnavailable, match=r"host name not found.* with --host"):
        Failover([Endpoint("http", NO_NAME, 1)]).local_address(HANG, Bounds())

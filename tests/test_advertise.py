"""Which host the others are told."""

from __future__ import annotations

import ipaddress
import logging

import pytest

from service_monitor.errors import ConfigError
from service_monitor.net.here import Here
from service_monitor.node.advertise import advertised_host
from service_monitor.node.monitored import read_monitored_url

HERE = [None, "http://127.0.0.1:9200", "http://localhost", "tcp://0.0.0.0:1"]
HERE += ["http://[::1]:1", "http://[fe80::1%25eth0]/"]


def monitored(url: str | None) -> str | None:
    return read_monitored_url(url).host if url else None


def no_store() -> str:
    raise AssertionError("the store was asked")


@pytest.mark.parametrize("url", [None, "http://10.0.0.9:9200", "http://127.0.0.1"])
def test_what_the_operator_says_counts(url: str | None) -> None:
    """Behind NAT nobody could correct the address."""
    assert advertised_host("es-1", monitored(url), no_store) == "es-1"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://10.0.0.9:9200/x", "10.0.0.9"),
        ("https://user:pass@es-1.example/", "es-1.example"),
        ("tcp://[2001:db8::1]:9300", "2001:db8::1"),
    ],
)
def test_else_the_monitored_host(url: str, host: str) -> None:
    """A `watch` beside its service's container would publish its own address."""
    assert advertised_host(None, monitored(url), no_store) == host


@pytest.mark.parametrize("url", HERE)
def test_loopback_is_no_address_for_others(url: str | None) -> None:
    """The line of the 2014 README would make every node join itself."""
    assert advertised_host(None, monitored(url), lambda: "10.0.0.7") == "10.0.0.7"


NETWORK = ipaddress.ip_network("172.18.0.0/16")
BRIDGES = Here(
    bridges={"172.18.0.1": "br-1", "fd01::1": "br-1"},
    networks={NETWORK: "the bridge br-1"},
    gateways=frozenset({"10.1.1.1", "fd02::1"}),
)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("172.17.0.1", "Docker's bridge"),
        ("172.18.0.1", "the address of the bridge br-1"),
        ("[::ffff:172.18.0.1]", "the address of the bridge br-1"),
        ("[fd01:0:0::0:1]", "the address of the bridge br-1"),
        ("[fd02::1]", "the gateway of this container"),
        ("10.1.1.1", "the gateway of this container"),
        ("host.docker.internal", "the machine around a container"),
        ("169.254.1.1", "link-local"),
        ("[fe80::1%25eth0]", "an address with a zone"),
    ],
)
def test_what_is_another_machine_on_each_counts_as_none(
    host: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Three nodes would show one host, and be told to join themselves."""
    url = f"http://{host}:9203/x"
    assert (
        advertised_host(None, monitored(url), lambda: "10.0.0.7", BRIDGES) == "10.0.0.7"
    )
    (said,) = caplog.messages
    assert f"({why})" in said
    assert "others are told 10.0.0.7" in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1"])
def test_loopback_is_nothing_to_warn_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The line that everybody writes would warn at each start."""
    advertised_host(None, monitored(url), lambda: "10.0.0.7", BRIDGES)
    assert caplog.messages == []


@pytest.mark.parametrize("host", ["127.0.0.1", "172.18.0.1", "host.docker.internal"])
def test_what_the_operator_says_counts_but_not_in_silence(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On one machine it may be right; on several nobody would know why it is not."""
    assert advertised_host(host, None, no_store, BRIDGES) == host
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert f"--host {host}" in said.message


@pytest.mark.parametrize("url", ["http://172.18.0.5:9200", "http://127.0.0.1:9200"])
def test_an_address_behind_a_bridge_is_told_with_a_warning(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On each machine the same container address: three nodes would be one host, and
    nobody would know why. On one machine it is right."""
    told = advertised_host(None, monitored(url), lambda: "172.18.0.5", BRIDGES)
    assert told == "172.18.0.5"
    (said,) = caplog.messages
    assert "behind the bridge br-1 of this machine" in said


def test_a_zone_is_never_published() -> None:
    """Others would be sent out of an interface that they do not have."""
    with pytest.raises(ConfigError, match=r"fe80::1%eth0, has a zone.*--host"):
        advertised_host(None, None, lambda: "fe80::1%eth0", BRIDGES)

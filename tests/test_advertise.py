"""Which host the others are told."""

from __future__ import annotations

import pytest

from service_monitor.advertise import advertised_host

HERE = [None, "http://127.0.0.1:9200", "http://localhost", "tcp://0.0.0.0:1"]
HERE += ["http://[::1]:1", "http://[fe80::1%25eth0]/"]


def no_store() -> str:
    raise AssertionError("the store was asked")


@pytest.mark.parametrize("url", [None, "http://10.0.0.9:9200", "http://127.0.0.1"])
def test_what_the_operator_says_counts(url: str | None) -> None:
    """Behind NAT nobody could correct the address."""
    assert advertised_host("es-1", url, no_store) == "es-1"


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
    assert advertised_host(None, url, no_store) == host


@pytest.mark.parametrize("url", HERE)
def test_loopback_is_no_address_for_others(url: str | None) -> None:
    """The line of the 2014 README would make every node join itself."""
    assert advertised_host(None, url, lambda: "10.0.0.7") == "10.0.0.7"

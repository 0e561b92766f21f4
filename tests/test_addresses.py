"""What passes for a host and a port."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_monitor.net.addresses import (
    canonical,
    check_zone,
    in_url,
    is_host,
    is_nowhere,
    is_only_here,
    split_port,
    with_port,
)

HOSTS = ["es-1", "es_1", "a", "10.0.0.1", "h.example.com", "h.example.com.", "1a.b"]
HOSTS += ["::1", "fe80::1%eth0", "::ffff:10.0.0.1", "A" * 63, "a." * 126 + "a"]
NO_HOSTS = ["", " ", ".", "a..b", "-a", "_a", "a b", "a,b", "a/b", "a:1", "10.0.0.1:9"]
NO_HOSTS += ["[::1]", "10.0.0.256", "1.2.3", "1", "12345", ":::", "::1%", "::1%a b"]
NO_HOSTS += [
    "a" * 64,
    "a." * 127,
    "a." * 126 + "aa",
    "a\n",
    "a\x00",
    "::1%a,b",
    "1:2",
    "h:",
    "0x7f.1",
    "0x7f000001",
    "127.0x1",
    "é",
]
HERE = ["127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"]
HERE += ["localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "localhost6"]
HERE += ["ip6-localhost", "ip6-loopback", "a.localhost", "fe80::1%eth0"]
HERE += ["169.254.169.254", "fe80::1", "::ffff:169.254.0.1", "224.0.0.1", "ff02::1"]
HERE += ["255.255.255.255", "::ffff:0.0.0.0", "host.docker.internal"]
HERE += ["gateway.docker.internal", "HOST.containers.internal.", "host.lima.internal"]
HERE += ["kubernetes.docker.internal", "host.minikube.internal", "docker.orb.internal"]
HERE += ["docker.for.mac.localhost", "docker.for.mac.host.internal"]
HERE += ["host.rancher-desktop.internal", "host.k3d.internal"]
NO_HOST = "names no host (an IPv6 address goes in brackets)"
NO_PORT = "has no valid port: 1 to 65535"
NOWHERE = ["0.0.0.0", "::", "224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255"]
NOWHERE += ["::ffff:0.0.0.0", "ff02::1%eth0"]


@pytest.mark.parametrize("text", HOSTS)
def test_accepts_names_and_addresses(text: str) -> None:
    """A node with a good name could not be published."""
    assert is_host(text)


@pytest.mark.parametrize("text", NO_HOSTS)
def test_refuses_what_nobody_could_connect_to(text: str) -> None:
    """The others would be sent to a host that does not exist, or crash the prober."""
    assert not is_host(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("h", ("h", None)),
        ("h:1", ("h", 1)),
        ("h:65535", ("h", 65535)),
        ("h:0080", ("h", 80)),
        ("[::1]", ("::1", None)),
        ("[::1]:2379", ("::1", 2379)),
        ("[fe80::1%25eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_splits_host_and_port(text: str, parts: tuple[str, int | None]) -> None:
    """The wrong port would be probed."""
    assert split_port(text) == parts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_HOST),
        (":1", NO_HOST),
        ("::1", NO_HOST),
        ("[::1", NO_HOST),
        ("[]", NO_HOST),
        ("[h]", NO_HOST),
        ("[::1]x", NO_HOST),
        ("h..x", "names no valid host"),
        ("[::g]", "names no valid host"),
        ("h:", NO_PORT),
        ("h:0", NO_PORT),
        ("h:65536", NO_PORT),
        ("h:-1", NO_PORT),
        ("h:+1", NO_PORT),
        ("h:٣", NO_PORT),
        ("h:s3cret", NO_PORT),
        ("h:" + "0" * 5000, NO_PORT),
    ],
)
def test_refuses_a_bad_place_without_quoting_it(text: str, why: str) -> None:
    """A piece of a password would be in the log."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        split_port(text)
    assert str(refused.value) == why


@given(st.ip_addresses(), st.integers(1, 65535))
def test_joins_what_it_splits(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    """`hosts --port` would print what no client can read."""
    assert is_host(str(address))
    assert split_port(with_port(str(address), port)) == (str(address), port)
    assert with_port(str(address), None) == str(address)


def test_a_url_has_an_address_in_brackets_also_without_a_port() -> None:
    """The part after the last colon of an IPv6 address would be taken for a port."""
    assert [in_url(host, None) for host in ("h", "::1")] == ["h", "[::1]"]
    assert [in_url(host, 80) for host in ("h", "::1")] == ["h:80", "[::1]:80"]


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ("es-1", "es-1"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ],
)
def test_an_address_has_one_spelling(host: str, same: str) -> None:
    """A bridge of this machine would not be recognised by another spelling."""
    assert canonical(host) == same


@pytest.mark.parametrize(
    "host", ["fe80::1%eth0", "2001:db8::1", "169.254.0.1", "10.0.0.1", "es-1", "a%b"]
)
def test_only_a_link_local_address_needs_an_interface(host: str) -> None:
    """A good address would be refused."""
    check_zone(host)


def test_a_link_local_address_without_interface_is_refused() -> None:
    """It would be probed for ever, and no system could connect."""
    with pytest.raises(
        ValueError, match=r"^names no interface: write \[fe80::1%25eth0\]$"
    ):
        check_zone("fe80::1")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("localhost", "loopback"),
        ("127.0.0.1", "loopback"),
        ("::", "loopback"),
        ("host.docker.internal", "the machine around a container"),
        ("224.0.0.1", "nothing to connect to"),
        ("2001:db8::1%eth0", "an address with a zone"),
        ("169.254.169.254", "link-local"),
    ],
)
def test_says_why_others_do_not_reach_it(host: str, why: str) -> None:
    """The warning would not tell an operator what is wrong with a host."""
    assert is_only_here(host) == why


@pytest.mark.parametrize("host", HERE)
def test_knows_what_only_this_machine_reaches(host: str) -> None:
    """Every node would tell the others to join themselves."""
    assert is_only_here(host)


@pytest.mark.parametrize("host", NOWHERE)
def test_knows_what_nobody_can_connect_to(host: str) -> None:
    """It could be published."""
    assert is_nowhere(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "h", "fe80::1", "240.0.0.1"])
def test_knows_what_somebody_might_connect_to(host: str) -> None:
    """--host would be refused without need."""
    assert not is_nowhere(host)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "h",
        "localhost.example",
        "2001:db8::1",
        "fd00::1",
        "ip-10-0-0-1.ec2.internal",
        "es-1.c.project.internal",
        "host.example.internal",
        "docker.example.com",
    ],
)
def test_knows_what_others_reach(host: str) -> None:
    """A good address would be thrown away."""
    assert not is_only_here(host)

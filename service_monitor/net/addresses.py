"""Host names, addresses and ports: what they look like, without asking anybody."""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?")
_ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")
_PLACE = re.compile(r"(?:\[(?P<six>.*:.*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?")
_HERE = re.compile(
    r"(ip6-)?(localhost|loopback)[46]?(\.localdomain[46]?)?|.+\.localhost"
)
_OUTSIDE = re.compile(
    r"(host|gateway|kubernetes|vm|docker)\.(docker|containers?|podman|lima|colima|orb|"
    r"minikube|rancher-desktop|k3d|wsl)\.internal|docker\.for\.(mac|win)\..+|"
    r"host\.crc\.testing"
)
_OLD_ADDRESS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.I)


def is_host(text: str) -> bool:
    """Tell whether it is a host name or an IP address, without port and brackets.

    Labels have up to 63 letters (RFC 1123, and the underscore of Compose); what is all
    digits and dots has to be an address. And 0x7f.1, which the C library takes for
    127.0.0.1, is no name.
    """
    if _OLD_ADDRESS.fullmatch(text) and "x" in text.lower():
        return False
    if _ADDRESS.fullmatch(text):
        return _address(text) is not None
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


def split_port(text: str) -> tuple[str, int | None]:
    """Split `HOST[:PORT]` or `[IPv6][:PORT]`; the host comes without brackets.

    Raises ValueError, which quotes nothing: it may be a piece of a password.
    """
    match = _PLACE.fullmatch(text)
    host = (match["six"] or match["host"]) if match else ""
    if not match or not host:
        raise ValueError("names no host (an IPv6 address goes in brackets)")
    host = host.replace("%25", "%")  # how a URL writes the zone of an address
    if not is_host(host):
        raise ValueError("names no valid host")
    port = match["port"]
    if port is None:
        return host, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError("has no valid port: 1 to 65535")
    return host, int(port)


def with_port(host: str, port: int | None) -> str:
    """Return `host:port`, an IPv6 address in brackets; without a port just the host."""
    return host if port is None else in_url(host, port)


def in_url(host: str, port: int | None) -> str:
    """Return it as a URL has it: an IPv6 address in brackets, also without a port."""
    place = f"[{host}]" if ":" in host else host
    return place if port is None else f"{place}:{port}"


def is_only_here(host: str) -> str | None:
    """Say why others cannot use it, None if by what it looks like they can.

    Loopback, unspecified, link-local, multicast, a zone; or a name for such a thing, or
    for the machine around a container.
    """
    address = _address(host)
    if address is None:
        name = host.lower().rstrip(".")
        if _HERE.fullmatch(name):
            return "loopback"
        return "the machine around a container" if _OUTSIDE.fullmatch(name) else None
    inner = _inner(address)
    if inner.is_loopback or inner.is_unspecified:  # to connect to, they are the same
        return "loopback"
    if is_nowhere(host):
        return "nothing to connect to"
    if "%" in host:
        return "an address with a zone"
    return "link-local" if inner.is_link_local else None


def check_zone(host: str) -> None:
    """Refuse to connect to a link-local IPv6 address without its interface.

    No system does. Raises ValueError.
    """
    address = _address(host)
    if address and address.version == 6 and address.is_link_local and "%" not in host:
        raise ValueError("names no interface: write [fe80::1%25eth0]")


def canonical(host: str) -> str:
    """Return an address as the kernel writes it, and anything else as it is."""
    address = _address(host)
    return host if address is None else str(_inner(address))


def is_nowhere(host: str) -> bool:
    """Tell whether it is an address that no service can have for others.

    Unspecified, multicast or broadcast.
    """
    address = _address(host)
    if address is None:
        return False
    inner = _inner(address)
    broadcast = str(inner) == "255.255.255.255"
    return inner.is_unspecified or inner.is_multicast or broadcast


def _inner(address: Address) -> Address:
    """Return the IPv4 address inside of an IPv6 one that is only its wrapping."""
    return getattr(address, "ipv4_mapped", None) or address


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

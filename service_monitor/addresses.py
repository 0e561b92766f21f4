"""Host names, addresses and ports: what they look like, without asking anybody."""

from __future__ import annotations

import ipaddress
import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?")
_ADDRESS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")
_PLACE = re.compile(r"(?:\[(?P<six>.*:.*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?")
_HERE = re.compile(
    r"(ip6-)?(localhost|loopback)[46]?(\.localdomain[46]?)?|.+\.localhost"
)


def is_host(text: str) -> bool:
    """Tell whether it is a host name or an IP address, without port and brackets.

    Labels have up to 63 letters (RFC 1123, and the underscore of Compose); what is all
    digits and dots has to be an address.
    """
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
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_only_here(host: str) -> bool:
    """Tell whether others cannot use it: loopback, unspecified, or with a zone."""
    address = _address(host)
    if address is None:
        return _HERE.fullmatch(host.lower().rstrip(".")) is not None
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_loopback or inner.is_unspecified or "%" in host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

"""What names and addresses only this machine can use: bridges, gateway, /etc/hosts.

All of it is read from the kernel and from files. No other machine is asked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from service_monitor.net.lacks import lack_in
from service_monitor.net.netlink import own_addresses

T = TypeVar("T")

_MARKS = ".dockerenv", "run/.containerenv"
_CONTAINED = *_MARKS, "run/systemd/container", "run/host/container-manager"
_TUNNEL = re.compile(r"^DEVTYPE=(vxlan|geneve|vlan|bond|wlan|bridge)$", re.MULTILINE)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Here:
    """What there was when somebody looked."""

    bridges: Mapping[str, str] = field(default_factory=dict)
    """Addresses of bridges that lead to containers and virtual machines alone, and the
    names of these bridges."""
    networks: Mapping[Network, str] = field(default_factory=dict)
    """The networks of these bridges."""
    addresses: frozenset[str] = frozenset()
    """All other addresses of this machine."""
    gateways: frozenset[str] = frozenset()
    """The default gateways, inside a container: as a rule the machine it runs on."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What /etc/hosts says, but for this machine's own name."""


ENGINES = {
    ipaddress.ip_interface("172.17.0.1/16"): "Docker's bridge",
    ipaddress.ip_interface("10.88.0.1/16"): "Podman's bridge",
}
"""The networks of containers that were given none, and the machine's address in each:
every machine has the same."""


def look(root: Path = Path("/")) -> Here:
    """Look around; what this kernel or container does not show is left out.

    Raises `LocalLack`.
    """
    inner = set(_inner_bridges(root))
    # Without /sys nothing would tell a bridge from a card.
    found = list(own_addresses()) if (root / "sys/class/net").is_dir() else []
    contained = _has_any(root, _CONTAINED)
    engines = {place.network: name for place, name in ENGINES.items()}
    return Here(
        bridges={address: name for name, address, _ in found if name in inner},
        networks=dict(_networks(found, inner)) | (engines if contained else {}),
        addresses=frozenset(address for name, address, _ in found if name not in inner),
        gateways=frozenset(_gateways(root)) if contained else frozenset(),
        names=_hosts_file(root, socket.gethostname()),
    )


def is_container(root: Path = Path("/")) -> bool:
    """Tell whether Docker or Podman says that this is a container of theirs."""
    return _has_any(root, _MARKS)


def _has_any(root: Path, marks: tuple[str, ...]) -> bool:
    return any((root / mark).exists() for mark in marks)


def default_gateway(root: Path = Path("/")) -> str | None:
    """Return the IPv4 default gateway, None if there is none. Raises `LocalLack`."""
    for _, destination, gateway in _routes(root):
        if destination == 0 and gateway != 0:
            return socket.inet_ntoa(struct.pack("=I", gateway))
    return None


def _gateways(root: Path) -> Iterator[str]:
    if four := default_gateway(root):
        yield four
    for line in _text(root / "proc/net/ipv6_route").splitlines():
        target, length, _, _, gateway, *_ = line.split()
        if int(target + length, 16) == 0 and int(gateway, 16) != 0:
            yield str(ipaddress.IPv6Address(bytes.fromhex(gateway)))


def _text(path: Path) -> str:
    """Read a file; without IPv6, or in a sandbox, it may not be there, and is empty."""
    return _read_or(lambda: path.read_text(errors="replace"), "")


def _entries(place: Path, pattern: str) -> list[Path]:
    return _read_or(lambda: list(place.glob(pattern)), [])


def _read_or(read: Callable[[], T], otherwise: T) -> T:
    """Return what `read` gives, or `otherwise` where this kernel or sandbox hides it.

    Raises `LocalLack`.
    """
    try:
        return read()
    except OSError as error:
        if lack := lack_in(error):
            raise lack from error
        return otherwise


def _networks(
    found: Iterable[tuple[str, str, int]], inner: set[str]
) -> Iterator[tuple[Network, str]]:
    for name, address, length in found:
        if name in inner:
            network = ipaddress.ip_network(f"{address}/{length}", strict=False)
            yield network, f"the bridge {name}"


def _routes(root: Path) -> Iterator[tuple[str, int, int]]:
    """Give interface, destination and gateway of each IPv4 route."""
    lines = _text(root / "proc/net/route").splitlines()[1:]
    for name, destination, gateway, *_ in map(str.split, lines):
        yield name, int(destination, 16), int(gateway, 16)


def _inner_bridges(root: Path) -> Iterator[str]:
    """Give the names of bridges that no other machine can be reached over.

    The bridge of a hypervisor, which carries the machine's own address, has a network
    card, a bond or a tunnel for a port, or a gateway behind it.
    """
    outward = {name for name, _, gateway in _routes(root) if gateway}
    net = root / "sys/class/net"
    for bridge in _entries(net, "*/bridge"):
        name = bridge.parent.name
        ports = (net / port.name for port in _entries(bridge.parent, "brif/*"))
        if name not in outward and not any(map(_leads_out, ports)):
            yield name


def _leads_out(port: Path) -> bool:
    if (port / "device").exists() or _entries(port, "lower_*"):
        return True
    return _TUNNEL.search(_text(port / "uevent")) is not None


def _hosts_file(root: Path, own: str) -> dict[str, tuple[str, ...]]:
    """Read /etc/hosts, but for what stands on a line with our own name.

    Debian says 127.0.1.1 of that name, and to others it means this machine all the
    same.
    """
    found: dict[str, tuple[str, ...]] = {}
    ours = {own.lower(), own.lower().partition(".")[0]}
    for line in _text(root / "etc/hosts").splitlines():
        address, *names = line.partition("#")[0].lower().split() or [""]
        if ours.isdisjoint(names):
            for name in names:
                found[name] = (*found.get(name, ()), address)
    return found

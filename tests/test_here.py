"""What this machine is to itself alone."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from integration.support.limits import no_files_left
from service_monitor.errors import LocalLack
from service_monitor.net import here
from service_monitor.net.here import Here, look
from service_monitor.net.meaning import behind, why_ambiguous
from service_monitor.net.netlink import own_addresses

ROUTES = "Iface\tDestination\tGateway\tFlags\n"
TO_LAN = "{name}\t00000000\t010011AC\t0003\n"  # default via 172.17.0.1


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine without interfaces, called es-1."""
    (tmp_path / "sys/class/net").mkdir(parents=True)
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(ROUTES)
    (tmp_path / "run/systemd").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(socket, "gethostname", lambda: "es-1.example.com")
    monkeypatch.setattr(here, "own_addresses", lambda: [])
    return tmp_path


def interface(root: Path, name: str, *entries: str, uevent: str = "") -> None:
    place = root / "sys/class/net" / name
    place.mkdir()
    (place / "uevent").write_text(f"INTERFACE={name}\n{uevent}")
    for entry in entries:
        (place / entry).mkdir(parents=True)


def bridged(
    root: Path, monkeypatch: pytest.MonkeyPatch, address: str = "172.18.0.1"
) -> Here:
    monkeypatch.setattr(here, "own_addresses", lambda: [("br0", address, 16)])
    return look(root)


def test_the_bridge_of_containers_is_another_one_on_each_machine(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three nodes would show one host, and be told to join themselves."""
    interface(root, "br0", "bridge", "brif/veth1")
    interface(root, "veth1")
    found = bridged(root, monkeypatch)
    assert why_ambiguous("172.18.0.1", found) == "the address of the bridge br0"
    assert why_ambiguous("172.18.0.2", found) is None


def test_what_is_behind_a_bridge_is_known(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's address, the same on each machine, would be told in silence."""
    interface(root, "br0", "bridge")
    found = bridged(root, monkeypatch)
    assert behind("172.18.255.9", found) == "the bridge br0"
    assert behind("172.19.0.9", found) is None
    assert behind("es-1", found) is None
    assert behind("172.17.0.2", found) is None


def test_a_container_on_the_engines_own_bridge_is_behind_it(root: Path) -> None:
    """The README's `docker run` on three machines would publish 172.17.0.2 thrice."""
    (root / ".dockerenv").touch()
    assert behind("172.17.0.2", look(root)) == "Docker's bridge"
    assert behind("10.88.0.2", look(root)) == "Podman's bridge"
    assert behind("172.18.0.2", look(root)) is None  # maybe an overlay


def test_an_empty_bridge_is_one_of_containers_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address would be another one before the first container starts."""
    interface(root, "br0", "bridge")
    assert why_ambiguous("172.18.0.1", bridged(root, monkeypatch))


@pytest.mark.parametrize(
    ("entry", "uevent"),
    [("device", ""), ("lower_eth0", ""), ("queues", "DEVTYPE=vxlan\n")],
)
def test_the_bridge_of_a_hypervisor_is_its_own_network(
    root: Path, monkeypatch: pytest.MonkeyPatch, entry: str, uevent: str
) -> None:
    """On Proxmox and KVM hosts, whose only address is on a bridge, the host in the URL
    would not be taken."""
    interface(root, "br0", "bridge", "brif/port", "brif/tap1")
    interface(root, "tap1")
    interface(root, "port", entry, uevent=uevent)
    assert why_ambiguous("172.18.0.1", bridged(root, monkeypatch)) is None


def test_a_bridge_that_a_gateway_is_behind_leads_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bridge over what we do not know, as an open vSwitch, would be thrown away."""
    interface(root, "br0", "bridge")
    (root / "proc/net/route").write_text(ROUTES + TO_LAN.format(name="br0"))
    assert why_ambiguous("172.18.0.1", bridged(root, monkeypatch)) is None


@pytest.mark.parametrize("address", ["172.17.0.1", "10.88.0.1"])
def test_an_engines_own_bridge_is_known_by_its_address(
    root: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """In a container on a network of its own nothing else tells what it is."""
    assert why_ambiguous(address, look(root))
    own = bridged(root, monkeypatch, address)  # of an interface that is no bridge
    assert why_ambiguous(address, own) is None


@pytest.mark.parametrize(
    "mark", [".dockerenv", "run/.containerenv", "run/systemd/container"]
)
def test_in_a_container_the_gateway_is_the_machine_around_it(
    root: Path, mark: str
) -> None:
    """Each machine's containers would be told of their own machine."""
    route = "eth0\t00000000\t0100000A\t0003\n"  # default via 10.0.0.1
    (root / "proc/net/route").write_text(ROUTES + route)
    assert why_ambiguous("10.0.0.1", look(root)) is None
    gateway = "fd02000000000000000000000000000a"
    rest = "00000400 00000001 00000000 00000003 eth0"
    zero = "0" * 32
    lines = [
        f"{zero} 00 {zero} 00 {gateway} {rest}",
        f"{zero} 00 {zero} 00 {zero} {rest}",
    ]
    (root / "proc/net/ipv6_route").write_text("\n".join(lines))
    assert why_ambiguous("fd02::a", look(root)) is None
    (root / mark).touch()
    for address in "10.0.0.1", "fd02::a":
        found = why_ambiguous(address, look(root))
        assert found == "the gateway of this container"
    assert why_ambiguous("10.0.0.2", look(root)) is None


HOSTS = """
127.0.0.1 localhost
127.0.1.1 es-1.example.com es-1   # Debian's
127.0.0.1 db here.example.com
172.17.0.1 outside
127.0.0.1 both
10.0.0.9  both real
::1 six # comment
"""


@pytest.mark.parametrize("name", ["db", "DB.", "here.example.com", "outside", "six"])
def test_a_name_that_the_hosts_file_has_for_loopback_is_loopback(
    root: Path, name: str
) -> None:
    """The name of `--add-host=outside:host-gateway` would be told to others."""
    (root / "etc/hosts").write_text(HOSTS)
    found = why_ambiguous(name, look(root))
    assert found
    assert found.endswith("says /etc/hosts")


@pytest.mark.parametrize(
    "name", ["es-1", "es-1.example.com", "both", "real", "unknown", "10.0.0.9"]
)
def test_this_machines_own_name_is_good_for_others(root: Path, name: str) -> None:
    """Debian has its own name on 127.0.1.1: a name would be told on some machines, and
    an address on others."""
    (root / "etc/hosts").write_text(HOSTS)
    assert why_ambiguous(name, look(root)) is None


def test_the_kernel_is_asked_for_all_addresses() -> None:
    """A bridge's second address would be told to others."""
    found = look()
    assert "127.0.0.1" in found.addresses


def test_where_nothing_is_shown_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox without /proc, /sys and netlink could not start."""

    def refuse(*_: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert look(tmp_path) == Here()


def test_without_a_file_left_nothing_is_guessed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would be told of a bridge, as nothing could be read that tells it."""
    interface(root, "br0", "bridge", "brif/veth1")
    interface(root, "veth1")
    (root / "etc/hosts").write_text(HOSTS)
    whole = look(root)
    for spare in range(4):
        with no_files_left(spare):
            try:
                assert look(root) == whole
            except LocalLack:
                assert spare < 3
            else:
                assert spare
    monkeypatch.undo()
    with no_files_left(), pytest.raises(LocalLack, match="open files"):
        list(own_addresses())

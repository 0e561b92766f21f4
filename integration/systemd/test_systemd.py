"""The examples for systemd, Quadlet and Fleet, on containers with systemd as PID 1.

They are installed by the lines of docs/recipes.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from integration import images
from integration.conftest import Containers
from integration.support.engine import network
from integration.support.etcd import start_etcd
from integration.support.members import ephemeral
from integration.systemd.machines import (
    MACHINE,
    Machine,
    everywhere,
    one_cluster,
    saved_image,
    wait_up,
)
from integration.systemd.variants import FLEET, ONE, QUADLET, SETTINGS, THREE, Variant
from integration.test_image import eventually

if TYPE_CHECKING:
    pass


pytestmark = pytest.mark.docker
SLOW = pytest.mark.systemd
VARIANTS = [
    pytest.param(ONE, id="one"),
    pytest.param(THREE, id="three", marks=SLOW),
    pytest.param(QUADLET, id="quadlet", marks=SLOW),
    pytest.param(FLEET, id="fleet", marks=SLOW),
]


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Iterator[list[Machine]]:
    """Boot three machines on one network with an etcd, and install the units."""
    variant: Variant = request.param
    tag = images.build_machine(variant.stage)
    with contextlib.ExitStack() as stack:
        volumes = dict(MACHINE["volumes"])
        if variant is QUADLET:
            saved = stack.enter_context(saved_image())
            volumes[saved] = {"bind": "/image.tar", "mode": "ro"}
        own = stack.enter_context(network())
        stack.enter_context(start_etcd(prefer="docker", network=own))
        containers = Containers(tag)
        stack.callback(containers.remove_all)
        made = []
        for number in (1, 2, 3):
            name = f"node-{number}"
            networking = containers.client.api.create_networking_config(
                {own.name: containers.client.api.create_endpoint_config(aliases=[name])}
            )
            container = containers.start(
                hostname=name,
                network=own.name,
                networking_config=networking,
                **(MACHINE | {"volumes": volumes}),
            )
            made.append(Machine(container, name, number, variant))

        def install(machine: Machine) -> None:
            machine.wait_booted()
            *copy, check = SETTINGS
            machine.sh("; ".join(["set -e", *copy]))
            machine.configure("es")
            machine.sh(f"echo COREOS_PRIVATE_IPV4={machine.name} >/etc/environment")
            machine.sh(check)
            machine.sh("; ".join(["set -e", *variant.install]))

        everywhere(install, made)
        yield made


@pytest.fixture
def nodes(machines: list[Machine], label: str) -> Iterator[list[Machine]]:
    """Give the machines for one test; none may leave more than members behind."""
    everywhere(lambda machine: machine.configure(label), machines)
    yield machines
    everywhere(Machine.tidy, machines)
    assert ephemeral(machines[0].store()) == {"services": [], "leases": []}


@pytest.mark.parametrize("machines", VARIANTS, indirect=True)
def test_nodes_started_at_once_form_one_cluster(nodes: list[Machine]) -> None:
    """After a power cut the nodes would form several clusters."""
    everywhere(Machine.start, nodes)
    wait_up(nodes)
    assert one_cluster(nodes)
    told = sorted([seeds for node in nodes for seeds in node.joined()], key=len)
    assert [len(seeds) for seeds in told] == [0, 1, 2]
    assert told[1] < told[2]
    everywhere(Machine.stop, nodes)
    for node in nodes:
        assert node.sh("systemctl --failed --no-legend") == ""


@SLOW
@pytest.mark.parametrize("machines", VARIANTS[:3], indirect=True)
def test_a_rebooted_node_rejoins(nodes: list[Machine]) -> None:
    """An update of the kernel would take a node out of its cluster for good."""
    rebooted, *others = nodes
    everywhere(Machine.start, nodes)
    wait_up(nodes)
    rebooted.container.restart(timeout=30)
    wait_up(nodes)
    assert rebooted.joined()[-1] == {node.name for node in others}
    assert one_cluster(nodes)


@SLOW
@pytest.mark.parametrize("machines", VARIANTS[:3], indirect=True)
def test_a_crash_loop_holds_up_nobody(nodes: list[Machine], label: str) -> None:
    """One broken disk would keep the whole cluster from starting."""
    broken, *others = nodes
    broken.configure(label, startup_time="crash")
    broken.drop_in("es.service", "[Service]", "RestartSec=200ms")
    everywhere(Machine.start, nodes)
    wait_up(others)
    assert one_cluster(others)
    eventually(lambda: len(broken.joined()) > 2, "more tries of the broken node")
    assert [s["host"] for s in broken.store()["services"] if s["state"] == "up"] == [
        node.name for node in others
    ]


@pytest.fixture
def queued(nodes: list[Machine], label: str) -> tuple[Machine, Machine]:
    """Give a node whose service does not get up, and one that waits for its turn.

    The start timeout is shorter than the wait, where more time can be asked for.
    """
    holder, waiter, _ = nodes
    holder.configure(label, startup_time="600")
    holder.start()
    eventually(lambda: holder.store()["leases"], "the lease is held")
    if waiter.variant is not QUADLET:  # Podman does not pass the request for more time
        waiter.drop_in(waiter.variant.queueing, "[Service]", "TimeoutStartSec=2s")
    waiter.start()
    eventually(lambda: len(holder.store()["leases"]) == 2, "queued")
    return holder, waiter


@SLOW
@pytest.mark.parametrize("machines", VARIANTS[:3], indirect=True)
def test_systemctl_tells_why_a_node_waits(queued: tuple[Machine, Machine]) -> None:
    """A start that hangs for no visible reason would be killed: by systemd, or us."""
    holder, waiter = queued
    why = f"position 1, held by {holder.name} ({holder.name})"
    eventually(lambda: waiter.status(waiter.variant.queueing) == why, why)
    time.sleep(5)  # more than twice the start timeout
    assert waiter.status(waiter.variant.queueing) == why
    show = "systemctl show -P ActiveState -P Result -P NRestarts"
    state = set(waiter.sh(f"{show} {waiter.variant.queueing}").split())
    assert state == {"activating", "success", "0"}
    shown = waiter.sh(waiter.variant.look, None)
    assert why in shown
    eventually(lambda: "down: " in holder.sh(holder.variant.look, None), "down")
    holder.stop()
    wait_up([waiter])
    eventually(lambda: "up: 200" in waiter.sh(waiter.variant.look, None), "up")


@SLOW
@pytest.mark.parametrize("machines", VARIANTS[:3], indirect=True)
def test_stopped_while_it_queues(queued: tuple[Machine, Machine]) -> None:
    """The stop would hang, and the ticket hold up those behind it."""
    holder, waiter = queued
    begun = time.monotonic()
    waiter.stop()
    assert time.monotonic() - begun < 2
    assert [lease["service_id"] for lease in holder.store()["leases"]] == [holder.name]
    assert waiter.joined() == []
    for unit in (waiter.variant.service, waiter.variant.queueing):
        assert waiter.sh(f"systemctl is-active {unit}", None) == "inactive\n"


# Stands for systemd: what a container sends reaches this socket, or does not.
NOTIFIED = """
import socket, subprocess
address, inside = "/run/notified", "/opt/service-monitor/bin/python"
send = '''import os, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in ("STATUS=position 1", "EXTEND_TIMEOUT_USEC=1", "WATCHDOG=1", "READY=1"):
    sock.sendto(line.encode(), os.environ["NOTIFY_SOCKET"])'''
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.bind(address)
    sock.settimeout(20)
    command = f"env NOTIFY_SOCKET={address} podman run --rm"
    options = "--network=host", "--cgroups=disabled", "--sdnotify=container"
    argv = [*command.split(), *options, "--entrypoint", inside, "localhost/es"]
    subprocess.run([*argv, "-c", send], check=True)
    said = ""
    while "READY=1" not in said:
        said += sock.recv(4096).decode() + "\\n"
print(said)
"""


@SLOW
@pytest.mark.parametrize("machines", VARIANTS[2:3], indirect=True)
def test_what_podman_passes_on_is_what_the_page_says(machines: list[Machine]) -> None:
    """The start timeout would be taken out, and a node be killed for waiting."""
    said = machines[0].sh(f"python3 -c {shlex.quote(NOTIFIED)}").splitlines()
    sent = ("STATUS=position 1", "EXTEND_TIMEOUT_USEC=1", "WATCHDOG=1", "READY=1")
    passed = [line for line in sent if line in said]
    assert passed == ["STATUS=position 1", "WATCHDOG=1", "READY=1"], said
    unit = machines[0].sh("systemctl cat es.service")
    assert "\nTimeoutStartSec=infinity\n" in unit


@SLOW
@pytest.mark.parametrize("machines", VARIANTS, indirect=True)
def test_systemd_finds_no_fault_with_the_units(machines: list[Machine]) -> None:
    """A directive that is misspelt is ignored, and nobody would notice."""
    machine = machines[0]
    variant = machine.variant
    units = {variant.service, variant.queueing, variant.watching}
    names = " ".join(machine.unit(unit) for unit in units)
    path = "SYSTEMD_UNIT_PATH=/run/systemd/generator:"  # and the usual ones
    said = machine.sh(f"{path} systemd-analyze verify --man=no {names}")
    assert said == ""

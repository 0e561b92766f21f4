"""The examples for systemd, Quadlet and Fleet, on containers with systemd as PID 1.

They are installed by the lines of docs/recipes.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from integration import fake_elasticsearch, images
from integration.conftest import Containers
from integration.images import ROOT
from integration.support.etcd import network, start_etcd
from integration.support.recipes import pasted
from integration.test_containers import ASK
from integration.test_image import eventually

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.docker
BOOTED = 30.0
MACHINE: dict[str, Any] = {
    "cap_add": ["SYS_ADMIN"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "cgroupns": "host",
    "tmpfs": {"/run": "", "/run/lock": ""},
    "volumes": {
        "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
        str(ROOT / "examples"): {"bind": "/clone/examples", "mode": "ro"},
        fake_elasticsearch.__file__: {
            "bind": "/usr/share/elasticsearch/fake_elasticsearch.py",
            "mode": "ro",
        },
        str(ROOT / "integration/systemd/docker"): {
            "bind": "/usr/bin/docker",
            "mode": "ro",
        },
    },
}


@dataclass(frozen=True)
class Variant:
    """A way to do it: what to install, and which unit tells what."""

    install: list[str]
    start: str
    service: str
    queueing: str
    watching: str
    look: str
    store: str = "etcd://etcd:2379"
    stage: str = "node"


# ElasticSearch's own image, as a stand-in with nothing but its directory.
ELASTIC = [
    "printf 'FROM scratch\\nCOPY . /usr/share/elasticsearch\\n' >/tmp/Containerfile",
    "podman build -qt $(grep -o 'docker.elastic[^ ]*' examples/quadlet/Containerfile) "
    "-f /tmp/Containerfile /usr/share/elasticsearch",
]
SETTINGS = pasted("systemd.md", "2. The settings")
*ONE_INSTALL, ONE_START, ONE_STATUS = pasted("systemd.md", "3. One unit")
*THREE_INSTALL, THREE_START, THREE_STATUS = pasted("systemd.md", "4. Or three units")
LEASE, WATCH = "service-monitor-lease@es.service", "service-monitor-watch@es.service"
ONE = Variant(
    ONE_INSTALL, ONE_START, "es.service", "es.service", "es.service", ONE_STATUS
)
THREE = Variant(THREE_INSTALL, THREE_START, "es.service", LEASE, WATCH, THREE_STATUS)
FLEET = Variant(
    ["install -m 644 examples/fleet/*.service /etc/systemd/system/"],
    "systemctl start --no-block es@{n}.service",
    "es@{n}.service",
    "es-lease@{n}.service",
    "es-discovery@{n}.service",
    "systemctl status --no-pager 'es*'",
    "etcd2://etcd:2379",
)
_, *QUADLET_BUILD = pasted("quadlet.md", "1. The image")
*QUADLET_INSTALL, QUADLET_START, QUADLET_STATUS = pasted("quadlet.md", "3. The unit")
QUADLET = Variant(
    # The first line builds our image; it comes from the engine that runs the machines.
    ["podman load -qi /image.tar", *ELASTIC, *QUADLET_BUILD, *QUADLET_INSTALL],
    QUADLET_START,
    *("es.service", "es.service", "es.service"),
    QUADLET_STATUS,
    stage="quadlet",
)
SLOW = pytest.mark.systemd
VARIANTS = [
    pytest.param(ONE, id="one"),
    pytest.param(THREE, id="three", marks=SLOW),
    pytest.param(QUADLET, id="quadlet", marks=SLOW),
    pytest.param(FLEET, id="fleet", marks=SLOW),
]


@dataclass
class Machine:
    """A container with systemd, and what an operator does on it."""

    container: Container
    name: str
    number: int
    variant: Variant
    since: float = 0.0
    dropped_in: list[str] = field(default_factory=list)

    def sh(self, script: str, code: int | None = 0) -> str:
        """Run a script as root; give what it printed, stderr too."""
        command = ["bash", "-c", f"cd /clone; {script}"]
        found, output = self.container.exec_run(command)
        text = str(output, errors="replace")
        assert code is None or found == code, f"{self.name}: {script}: {found}\n{text}"
        return text

    def unit(self, name: str) -> str:
        return name.format(n=self.number)

    def wait_booted(self) -> None:
        eventually(
            lambda: "running" in self.sh("systemctl is-system-running", None),
            f"{self.name} booted",
            BOOTED,
        )

    def configure(self, label: str, startup_time: str = "1") -> None:
        """Set what the page tells to set, and the stand-in's own; a test begins."""
        self.since = time.time()
        settings = {
            "SERVICE_MONITOR_STORE": self.variant.store,
            "SERVICE_MONITOR_HOST": self.name,
            "SERVICE_MONITOR_LABEL": label,
            "SERVICE_MONITOR_MONITOR_URL": f"http://{self.name}:9200/",
            "STARTUP_TIME": startup_time,
        }
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        self.sh(f"printf %s {shlex.quote(lines)} >/etc/service-monitor/es.env")

    def drop_in(self, unit: str, *lines: str) -> None:
        """Change a unit until the machine is tidied up."""
        directory = f"/etc/systemd/system/{self.unit(unit)}.d"
        self.dropped_in.append(directory)
        text = shlex.quote("\n".join(lines) + "\n")
        self.sh(f"mkdir -p {directory}; printf %s {text} >{directory}/test.conf")
        self.sh("systemctl daemon-reload")

    def start(self) -> None:
        self.sh(self.unit(self.variant.start))

    def stop(self) -> None:
        self.sh(f"systemctl stop {self.unit(self.variant.service)}")

    def status(self, unit: str) -> str:
        """Give the line that `systemctl status` shows of a unit."""
        shown = self.sh(f"systemctl status --no-pager {self.unit(unit)}", None)
        line = re.search('^ *Status: "(.*)"$', shown, re.MULTILINE)
        return line[1] if line else ""

    def is_up(self) -> bool:
        """Tell whether systemd and the store both say so."""
        unit = self.unit(self.variant.watching)
        if self.sh(f"systemctl is-active {unit}", None) != "active\n":
            return False
        services = self.store()["services"]
        return (self.name, "up") in [(s["host"], s["state"]) for s in services]

    def joined(self) -> list[set[str]]:
        """Tell for each start of the service in this test whom it was told to join."""
        unit = self.unit(self.variant.service)
        log = self.sh(f"journalctl -o cat --since=@{self.since:.6f} -u {unit}")
        found = re.findall("^to join:(.*)$", log, re.MULTILINE)
        return [set(filter(None, seeds.strip().split(","))) for seeds in found]

    def health(self) -> dict[str, Any]:
        url = shlex.quote(f"http://{self.name}:9200/_cluster/health")
        answer: dict[str, Any] = json.loads(
            self.sh(f"python3 -c {shlex.quote(ASK)} {url}")
        )
        return answer

    def store(self) -> dict[str, list[dict[str, Any]]]:
        """Give what the store has of this label."""
        settings = "set -a; . /etc/service-monitor/es.env; set +a"
        found: dict[str, list[dict[str, Any]]] = json.loads(
            self.sh(f"{settings}; service-monitor status --format=json")
        )
        return found

    def tidy(self) -> None:
        """Stop what runs, and take back what a test has changed."""
        directories = " ".join(self.dropped_in)
        self.sh(
            f"systemctl stop {self.unit(self.variant.service)}; "
            f"rm -rf {directories}; systemctl daemon-reload; systemctl reset-failed"
        )
        self.dropped_in.clear()


def everywhere(do: Callable[[Machine], object], machines: list[Machine]) -> None:
    """Do it on all machines at the same moment."""
    with ThreadPoolExecutor(len(machines)) as pool:
        list(pool.map(do, machines))


@contextlib.contextmanager
def saved_image() -> Iterator[str]:
    """Save the project's image to a file for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="service-monitor-image-") as directory:
        path = f"{directory}/image.tar"
        subprocess.run(
            ["docker", "save", "-o", path, images.PROJECT_IMAGE], check=True, timeout=60
        )
        yield path


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
    """Give the machines for one test; none may leave anything in the store."""
    everywhere(lambda machine: machine.configure(label), machines)
    yield machines
    everywhere(Machine.tidy, machines)
    assert machines[0].store() == {"services": [], "leases": []}


def wait_up(nodes: list[Machine], timeout: float = 30) -> None:
    for node in nodes:
        eventually(node.is_up, f"{node.name} up", timeout)


def one_cluster(nodes: list[Machine]) -> bool:
    answers = [node.health() for node in nodes]
    return len({answer["cluster_uuid"] for answer in answers}) == 1 and {
        answer["number_of_nodes"] for answer in answers
    } == {len(nodes)}


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

"""Containers with systemd as PID 1, and what an operator does on them."""

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

from integration import fake_elasticsearch, images
from integration.images import ROOT
from integration.systemd.variants import Variant
from integration.test_containers import ASK
from integration.test_image import eventually

if TYPE_CHECKING:
    from docker.models.containers import Container


BOOTED = 120.0
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
            ["docker", "save", "-o", path, images.PROJECT_IMAGE],
            check=True,
            timeout=300,
        )
        yield path


def wait_up(nodes: list[Machine], timeout: float = 90) -> None:
    for node in nodes:
        eventually(node.is_up, f"{node.name} up", timeout)


def one_cluster(nodes: list[Machine]) -> bool:
    answers = [node.health() for node in nodes]
    return len({answer["cluster_uuid"] for answer in answers}) == 1 and {
        answer["number_of_nodes"] for answer in answers
    } == {len(nodes)}

"""The ways to run it under systemd: what to install, by the lines of docs/recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.support.recipes import pasted

if TYPE_CHECKING:
    pass


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

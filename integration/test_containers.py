"""The whole start in containers: every step is a `docker run service_monitor ...`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from integration import fake_elasticsearch
from integration.conftest import Containers
from integration.support.engine import network
from integration.support.etcd import start_etcd

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.docker
PROGRAM = "/fake_elasticsearch.py"
STARTUP_TIME = "2"
ASK = """
import urllib.request, sys
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
"""


@dataclass(frozen=True)
class Node:
    """A node that was started, what it saw before, and when its turn came."""

    name: str
    service: Container
    seeds: str
    granted: float
    token: int


def boot(
    containers: Containers, label: str, name: str, joined: Mapping[str, Any]
) -> Node:
    """Do what an operator's unit does, with `docker run` for every step."""
    who = ("--label", label, "--service-id", name)
    asking = containers.start("acquire-lease", *who, "--print-token", **joined)
    lease = containers.result(asking)
    granted = time.monotonic()
    assert lease.code == 0, lease
    hosts = containers.run("hosts", "--label", label, **joined)
    assert hosts.code == 0, hosts
    service = containers.start(
        *(PROGRAM, "--name", name, "--host", name, "--startup-time", STARTUP_TIME),
        *("--seed-hosts", hosts.stdout.strip()),
        entrypoint="python",
        name=name,
        hostname=name,
        volumes={fake_elasticsearch.__file__: {"bind": PROGRAM, "mode": "ro"}},
        **joined,
    )
    containers.start("watch", *who, "--monitor-url", f"http://{name}:9200/", **joined)
    return Node(name, service, hosts.stdout.strip(), granted, int(lease.stdout))


def health(node: Node) -> dict[str, Any]:
    """Ask a node from inside its container, which is where its address is known."""
    url = f"http://{node.name}:9200/_cluster/health"
    code, output = node.service.exec_run(["python", "-c", ASK, url])
    assert code == 0, output
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.fixture
def joined(docker: None) -> Iterator[dict[str, Any]]:
    """Give the options of a container on a network of our own with an etcd."""
    with network() as own, start_etcd(prefer="docker", network=own):
        environment = {"SERVICE_MONITOR_STORE": "etcd://etcd:2379"}
        yield {"network": own.name, "environment": environment}


def test_containers_started_at_once_form_one_cluster(
    joined: dict[str, Any], containers: Containers, label: str
) -> None:  # `joined` comes first: containers go before the network they are on
    """Else what works on a developer's machine would not work as it is deployed."""
    tag = label[-8:]  # names are of the whole engine, and host names are short
    names = [f"node-{n}-{tag}" for n in (1, 2, 3)]
    with ThreadPoolExecutor() as pool:
        nodes = list(
            pool.map(lambda name: boot(containers, label, name, joined), names)
        )
    waiting = ("--wait", "3", "--timeout", "60s", "--port", "9200")
    hosts = containers.start("hosts", "--label", label, *waiting, **joined)
    result = containers.result(hosts)

    assert result.stdout.strip() == ",".join(f"{name}:9200" for name in names)
    answers = [health(node) for node in nodes]
    assert len({answer["cluster_uuid"] for answer in answers}) == 1
    assert [answer["number_of_nodes"] for answer in answers] == [3, 3, 3]
    nodes.sort(key=lambda node: node.token)
    assert nodes == sorted(nodes, key=lambda node: node.granted)
    earlier: list[str] = []
    for node in nodes:
        assert node.seeds == ",".join(sorted(earlier))
        earlier.append(node.name)

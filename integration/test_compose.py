"""The compose examples, run by docker-compose, with nodes that really cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from integration import fake_elasticsearch, images
from integration.support.compose import ROOT, Project, paste, program, started

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("compose")]
RUN = ROOT / "examples/compose/docker-compose.yml"
SIDECARS = ROOT / "examples/compose/sidecars.yml"
NODES = ("node-1", "node-2", "node-3")
PROGRAM = "/fake_elasticsearch.py"
MOUNT = f"{fake_elasticsearch.__file__}:{PROGRAM}:ro"
START = (
    f"exec python {PROGRAM} --name=$$(hostname) --host={{host}} "
    '--startup-time=1 --seed-hosts="{seeds}"'
)
ASK = """
import socket, urllib.request
url = f"http://{socket.gethostbyname(socket.gethostname())}:9200/_cluster/health"
print(urllib.request.urlopen(url, timeout=60).read().decode())
"""

# The `run` line of the example, around a service that forms clusters and listens at its
# own address only.
CLUSTERED_RUN = {
    "node": {
        "volumes": [MOUNT],
        "entrypoint": [
            *("sh", "-c"),
            "exec service-monitor run --label=demo "
            '--monitor-url=http://$$(hostname -i):9200 -- sh -c "$$0"',
            START.format(host="$$(hostname -i)", seeds="$$SERVICE_MONITOR_HOSTS"),
        ],
        "command": [],
    }
}
CLUSTERED_SIDECARS = {
    name: {
        "volumes": [MOUNT],
        "command": [
            *("sh", "-c"),
            "read -r hosts </turn/ask || exit; "
            + START.format(host=name, seeds="$$hosts"),
        ],
    }
    for name in NODES
}


@pytest.fixture(scope="module")
def compose() -> None:
    """Have docker-compose and the images; without it skip."""
    if not program():
        pytest.skip("no docker-compose, and not root to install it with apt-get")
    images.build_project()
    for tag in images.ETCD_IMAGE, images.PYTHON_IMAGE:
        images.ensure(tag)


@pytest.fixture(scope="module")
def run() -> Iterator[Project]:
    with started(RUN, CLUSTERED_RUN) as project:
        yield project


@pytest.fixture(scope="module")
def sidecars() -> Iterator[Project]:
    with started(SIDECARS, CLUSTERED_SIDECARS) as project:
        yield project


Health = dict[str, Any] | None


def health(container: str) -> Health:
    """Ask a node from inside its container; None while it does not answer."""
    command = ("docker", "exec", container, "python", "-c", ASK)
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode else json.loads(done.stdout)


def one_of(project: Project, count: int, *services: str) -> Callable[[], bool]:
    """Make a condition: all nodes say that they are in one cluster of `count`."""

    def check() -> bool:
        with ThreadPoolExecutor() as pool:
            said = [*pool.map(health, project.containers(*services))]
        ready = [answer for answer in said if answer]
        return (
            len(ready) == len(said) == count
            and len({answer["cluster_uuid"] for answer in ready}) == 1
            and all(answer["number_of_nodes"] == count for answer in ready)
        )

    return check


def test_nodes_of_one_container_form_one_cluster(run: Project) -> None:
    """A copied compose file would start several clusters."""
    run.until(one_of(run, 3, "node"), "one cluster of three", 60)
    assert run.logs("node").count("to join: nobody") == 1


def test_scaling_adds_to_the_cluster(run: Project) -> None:
    """More nodes would need more than a number, or make clusters of their own."""
    run.until(one_of(run, 3, "node"), "one cluster of three", 60)
    run.run("up", "-d", "--scale", "node=5")
    run.until(one_of(run, 5, "node"), "one cluster of five", 60)


def test_a_crashed_node_is_restarted_and_rejoins(run: Project) -> None:
    """A node that crashed would stay away, or come back as a cluster of its own."""
    first, *_ = run.containers("node")
    run.until(lambda: health(first), "the node is up", 60)
    count = len(run.containers("node"))
    crash = "import os; os.kill(max(int(p) for p in os.listdir('/proc') if p.isdigit() "
    crash += "and b'fake' in open(f'/proc/{p}/cmdline', 'rb').read() and p != '1' "
    crash += "and int(p) != os.getpid()), 9)"
    done = subprocess.run(
        ("docker", "exec", first, "python", "-c", crash), capture_output=True
    )
    assert done.returncode == 0, done
    run.until(lambda: not health(first), "it crashed", 10)
    run.until(one_of(run, count, "node"), "it rejoined", 60)


def test_killed_and_started_again_they_form_one_cluster(run: Project) -> None:
    """After a power cut there would be several clusters, or none."""
    count = len(run.containers("node"))
    run.until(one_of(run, count, "node"), "one cluster", 60)
    run.kill()
    run.run("up", "-d", "--scale", f"node={count}")
    run.until(one_of(run, count, "node"), "one cluster again", 90)


def test_nodes_with_sidecars_form_one_cluster(sidecars: Project) -> None:
    """Who cannot change the service's image would get several clusters."""
    sidecars.until(one_of(sidecars, 3, *NODES), "one cluster of three", 60)


def test_a_crashed_service_queues_again(sidecars: Project) -> None:
    """The first node would found again, and its sidecar watch what is no more."""
    sidecars.until(one_of(sidecars, 3, *NODES), "one cluster of three", 60)
    founder = next(node for node in NODES if "elected" in sidecars.logs(node))
    command = ("docker", "restart", "-t", "0", *sidecars.containers(founder))
    subprocess.run(command, check=True, capture_output=True)
    sidecars.until(one_of(sidecars, 3, *NODES), "it rejoined", 60)
    hosts = ("hosts", "--label=demo", "--wait=3", "--timeout=30s")
    assert founder in (sidecars.ask("watch-1", "service-monitor", *hosts) or "")


def test_killed_with_their_sidecars_they_form_one_cluster(sidecars: Project) -> None:
    """After `docker kill` of everything `up` would not give one cluster again."""
    sidecars.until(one_of(sidecars, 3, *NODES), "one cluster of three", 60)
    sidecars.kill()
    sidecars.run("up", "-d")
    sidecars.until(one_of(sidecars, 3, *NODES), "one cluster again", 90)


@pytest.mark.timeout(600, func_only=True)
def test_the_documented_lines() -> None:
    """A newcomer would paste a line that does not work, and go away."""
    said = paste("docker.md", "Compose")
    hosts = [line.count(":9200") for line in said.splitlines()]
    assert [count for count in hosts if count > 2] == [3, 5], said
    assert said.count("to join: nobody") == 1

"""MariaDB Galera and RabbitMQ, with the files of the examples: one cluster, or several.

Slow, so in an environment of its own: `tox -e real`.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from integration.support.compose import ROOT, Project, build, paste, program, started

pytestmark = [
    pytest.mark.docker,
    pytest.mark.real,
    pytest.mark.timeout(600, func_only=True),
]

# What `run` does, but for the one thing: it does not wait for its turn.
BLIND = """
service-monitor watch --label=$$LABEL --monitor-url=$$URL {watch} &
SERVICE_MONITOR_HOSTS=$$(service-monitor hosts --label=$$LABEL) || exit
export SERVICE_MONITOR_HOSTS SERVICE_MONITOR_FIRST=0
[ "$$SERVICE_MONITOR_HOSTS" ] || SERVICE_MONITOR_FIRST=1
exec {node}
"""


class Example(ABC):
    """An example of three nodes, and how to ask the database itself."""

    directory: Path
    nodes: tuple[str, ...]
    label: str
    url: str
    node: str
    watch = ""
    begun: str  # it is there as soon as the first node has begun to found
    page: tuple[str, str]  # the recipe, and the heading above the lines to paste

    @property
    def file(self) -> Path:
        return self.directory / "docker-compose.yml"

    def without_lease(self) -> dict[str, Any]:
        """Change each node to ask `hosts` at once, with the same start script."""
        script = BLIND.format(watch=self.watch, node=self.node)
        script = script.replace("$$LABEL", self.label).replace("$$URL", self.url)
        blind = {"entrypoint": ["sh", "-c", script], "command": []}
        return dict.fromkeys(self.nodes, blind)

    @abstractmethod
    def members(self, project: Project, node: str) -> frozenset[str] | None:
        """Ask a node who is in its cluster; None while it cannot say."""

    def all_members(self, project: Project) -> list[frozenset[str] | None]:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda node: self.members(project, node), self.nodes))

    @abstractmethod
    def write(self, project: Project, node: str) -> None:
        """Write something through one node."""

    @abstractmethod
    def written(self, project: Project, node: str) -> bool:
        """Tell whether a node knows what was written last."""

    def recover(self, project: Project) -> None:  # noqa: B027  # mostly nothing to do
        """Do what the example's README says, after all were killed."""

    def one_of_three(self, project: Project) -> bool:
        """Tell whether all three say that they are in one cluster of three."""
        said = self.all_members(project)
        return len(set(said)) == 1 and said[0] is not None and len(said[0]) == 3


class Galera(Example):
    directory = ROOT / "examples/galera"
    nodes = ("galera-1", "galera-2", "galera-3")
    label, url, node = "galera", "http://127.0.0.1:9200/", "galera-node"
    begun = "/var/lib/mysql/founding"
    page = "galera.md", "MariaDB Galera"
    rows = 0

    def members(self, project: Project, node: str) -> frozenset[str] | None:
        status = self.status(project, node)
        if status.get("wsrep_local_state_comment") != "Synced":
            return None
        addresses = status["wsrep_incoming_addresses"].split(",")
        assert int(status["wsrep_cluster_size"]) == len(addresses)
        uuid = status["wsrep_cluster_state_uuid"]
        return frozenset(f"{uuid} {address}" for address in addresses)

    def status(self, project: Project, node: str) -> dict[str, str]:
        said = self.query(project, node, "SHOW GLOBAL STATUS LIKE 'wsrep%'") or ""
        return dict(line.split("\t", 1) for line in said.splitlines())

    def query(self, project: Project, node: str, statement: str) -> str | None:
        return project.ask(node, "mariadb", "-NBe", statement)

    def write(self, project: Project, node: str) -> None:
        self.rows += 1
        table = "CREATE DATABASE IF NOT EXISTS d; CREATE TABLE IF NOT EXISTS d.t (n INT"
        insert = f"PRIMARY KEY); INSERT INTO d.t VALUES ({self.rows})"
        assert self.query(project, node, f"{table} {insert}") is not None

    def written(self, project: Project, node: str) -> bool:
        return self.query(project, node, "SELECT count(*) FROM d.t") == f"{self.rows}\n"

    def recover(self, project: Project) -> None:
        def refused(node: str) -> list[str]:
            said = r"not the last to stop\. It is at [0-9a-f-]+:(\d+)"
            return re.findall(said, project.logs(node))

        project.until(lambda: all(map(refused, self.nodes)), "all refuse", 60)
        best = max(self.nodes, key=lambda node: int(refused(node)[-1]))
        change = "s/^safe_to_bootstrap: 0/safe_to_bootstrap: 1/"
        state = "/var/lib/mysql/grastate.dat"
        run = ("run", "--rm", "--no-deps", "--entrypoint", "sed")
        project.run(*run, best, "-i", change, state)


class RabbitMQ(Example):
    directory = ROOT / "examples/rabbitmq"
    nodes = ("rabbit-1", "rabbit-2", "rabbit-3")
    label, url, node = "rabbitmq", "tcp://127.0.0.1:5672", "rabbitmq-node"
    begun = "/var/lib/rabbitmq/mnesia/rabbit@rabbit-1"
    watch = "--host=$$(hostname)"
    page = "rabbitmq.md", "RabbitMQ"
    users = 0

    def without_lease(self) -> dict[str, Any]:
        changes = super().without_lease()
        cookie = 'printf %s "$$COOKIE" >~/.erlang.cookie; chmod 400 ~/.erlang.cookie\n'
        for change in changes.values():
            words = change["entrypoint"]
            change["entrypoint"] = [*words[:-1], cookie + words[-1]]
        return changes

    def members(self, project: Project, node: str) -> frozenset[str] | None:
        said = project.ask(node, "rabbitmqctl", "-q", "cluster_status") or ""
        if not (running := re.search(r"Running Nodes\n\n((?:rabbit@.*\n)+)", said)):
            return None
        return frozenset(running[1].split())

    def write(self, project: Project, node: str) -> None:
        self.users += 1
        add = ("rabbitmqctl", "-q", "add_user", f"user-{self.users}", "secret")
        assert project.ask(node, *add) is not None

    def written(self, project: Project, node: str) -> bool:
        said = project.ask(node, "rabbitmqctl", "-q", "list_users") or ""
        return f"user-{self.users}\t" in said


@pytest.fixture(scope="module", params=[Galera(), RabbitMQ()], ids=["galera", "rabbit"])
def example(request: pytest.FixtureRequest) -> Example:
    """Give an example whose images are built."""
    if not program():
        pytest.skip("no docker-compose, and not root to install it with apt-get")
    chosen: Example = request.param
    build(chosen.file)
    return chosen


def test_without_the_lease_several_form(example: Example) -> None:
    """The tests above would prove nothing: the database might see to it by itself.

    And the data of one cluster would be lost when its node joins another.
    """
    with started(example.file, example.without_lease()) as project:
        project.until(
            lambda: None not in example.all_members(project), "each node is up", 90
        )
        said = example.all_members(project)
        clusters = len(set(said))
        assert clusters > 1, said
        print(f"without the lease: {clusters} clusters")
        stays = example.nodes[0]
        leaves = next(
            n for n, s in zip(example.nodes, said, strict=True) if s != said[0]
        )
        project.kill(leaves)
        told = ("-e", "SERVICE_MONITOR_FIRST=0", "-e", f"SERVICE_MONITOR_HOSTS={stays}")
        refused = project.attempt(
            *("run", "--rm", "--no-deps", *told, "--entrypoint", example.node, leaves)
        )
    assert refused.returncode == 78, refused
    assert "the data here is" in refused.stdout + refused.stderr


def test_the_documented_lines(example: Example) -> None:
    """A newcomer would paste a line that does not work, and go away."""
    said = paste(*example.page)
    assert all(node in said for node in example.nodes), said


def test_an_empty_disk_may_be_forbidden_to_found(example: Example) -> None:
    """A replaced disk would found a second cluster while the others are down."""
    node = example.nodes[0]
    forbidden = {node: {"environment": {"MAY_FOUND": "no"}}}
    with started(example.file, forbidden, "etcd", node) as project:
        project.until(
            lambda: "nobody is up and this disk is empty" in project.logs(node),
            "it refuses",
            30,
        )


@pytest.mark.parametrize("later", [0.0, 2.0, 4.0])
def test_a_founder_killed_in_its_first_start_founds(
    example: Example, later: float
) -> None:
    """One crash in the very first start would need somebody to empty the disk."""
    node = example.nodes[0]
    with started(example.file, {}, "etcd", node) as project:
        begun = ("test", "-e", example.begun)
        project.until(lambda: project.ask(node, *begun) is not None, "it founds", 30)
        time.sleep(later)
        project.kill(node)
        project.run("up", "-d", node)
        project.until(lambda: example.members(project, node), "it is up", 90)


@pytest.fixture(scope="module")
def project(example: Example) -> Iterator[Project]:
    """Start all nodes of an example at once, from empty disks."""
    with started(example.file) as project:
        yield project


def test_all_at_once_found_one_cluster(example: Example, project: Project) -> None:
    """The tool would be worth nothing for the databases that it is made for."""
    project.until(lambda: example.one_of_three(project), "one cluster of three", 150)
    log = project.logs(*example.nodes)
    assert log.count(f"starting {example.node};") == 3  # none needed a second try
    assert log.count(f"starting {example.node}; to join: nobody") == 1


def test_a_killed_node_rejoins(example: Example, project: Project) -> None:
    """A node that crashed would stay away, or found a cluster of its own."""
    project.until(lambda: example.one_of_three(project), "one cluster of three", 30)
    example.write(project, example.nodes[0])
    killed = example.nodes[0]  # the founder
    project.kill(killed)
    assert example.members(project, killed) is None
    project.run("start", killed)
    project.until(lambda: example.one_of_three(project), f"{killed} rejoined", 60)
    assert example.written(project, killed)


def test_all_stopped_and_started_again(example: Example, project: Project) -> None:
    """An upgrade of the machine would be the end of the cluster."""
    project.until(lambda: example.one_of_three(project), "one cluster of three", 30)
    example.write(project, example.nodes[0])
    project.run("stop")
    project.run("up", "-d")
    project.until(lambda: example.one_of_three(project), "one cluster again", 90)
    assert all(example.written(project, node) for node in example.nodes)


def test_all_killed_and_started_again(example: Example, project: Project) -> None:
    """After a power cut data would be lost, or nobody would know how to go on."""
    project.until(lambda: example.one_of_three(project), "one cluster of three", 30)
    example.write(project, example.nodes[0])
    project.kill()
    project.run("up", "-d")
    example.recover(project)
    project.until(lambda: example.one_of_three(project), "one cluster again", 120)
    assert all(example.written(project, node) for node in example.nodes)

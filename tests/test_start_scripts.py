"""The start scripts of the examples, with stand-ins for the databases' own programs."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.support.documents import README, ROOT

EXAMPLES = ROOT / "examples"
ES_PAGE = ROOT / "docs/recipes/elasticsearch.md"
FOUND = "-Ecluster.initial_master_nodes=node-1"
SEEDS = "-Ediscovery.seed_hosts="


@dataclass
class Machine:
    """A directory with programs that stand for a machine's, and what they were told."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def program(self, path: str, *lines: str) -> None:
        """Make a program; `$0 $*` of each call goes to the file `calls`."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        tell = f'echo "${{0##*/}} $*" >>{self.root}/calls'
        file.write_text("\n".join(["#!/bin/sh", tell, *lines, ""]))
        file.chmod(0o755)

    def run(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script for at most 20 s, with nothing in its environment but this."""
        (self.root / "calls").unlink(missing_ok=True)
        file = self.root / "script"
        file.write_text(script)
        path = f"{self.root}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", file],
            env={"PATH": path, **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=20,
        )

    def calls(self, program: str) -> list[str]:
        """Give the arguments of each call of a program."""
        file = self.root / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        split = (line.partition(" ") for line in lines)
        return [arguments for name, _, arguments in split if name == program]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ElasticSearch


def of_the_readme() -> str:
    text = README.read_text()
    (script,) = re.findall(r"^```sh\n(hosts=.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(script)


START = EXAMPLES / "systemd/start-elasticsearch"
ES_SCRIPTS = {"example": START.read_text(), "readme": of_the_readme()}


@pytest.fixture(params=ES_SCRIPTS)
def es(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    """Give a machine with ElasticSearch, whose disk a first start has left its mark on.

    Without `run` it asks `hosts`, which prints $UP.
    """
    script = ES_SCRIPTS[request.param].replace("/usr/share/elasticsearch", "$ES_HOME")
    machine.environ = {"ES_HOME": str(machine.root / "es"), "ES": script, "UP": ""}
    machine.environ["ES_PATH_CONF"] = str(machine.root / "config")
    if request.param == "example":
        machine.environ["ES_NODES"] = "es-1,es-2,es-3"  # the README has it in its text
    machine.program("es/bin/elasticsearch")
    machine.program("bin/hostname", "echo node-1")
    machine.program("bin/service-monitor", 'echo "$UP"', "exit ${CODE:-0}")
    (machine.root / "data/nodes/0").mkdir(parents=True)
    machine.environ["ES_DATA"] = str(machine.root / "data")
    return machine


def started(es: Machine, hosts: str, **environ: str) -> list[str]:
    """Start it as `run` would, and as a unit without `run`; give its arguments."""
    run = {"SERVICE_MONITOR_HOSTS": hosts, "SERVICE_MONITOR_FIRST": str(int(not hosts))}
    found = []
    for way in (run | {"UP": hosts}, {"UP": hosts}):
        done = es.run(es.environ["ES"], **(way | environ))
        assert done.returncode == 0, done.stderr
        (arguments,) = es.calls("elasticsearch")
        found.append(arguments.split())
    assert found[0] == found[1]
    return found[0]


def test_the_page_shows_the_example() -> None:
    """A reader of the page would paste a script that nobody has tested."""
    indented = re.sub("(?m)^(?=.)", "    ", START.read_text())
    assert indented in ES_PAGE.read_text()


def test_the_first_node_founds_also_after_a_start_that_failed(es: Machine) -> None:
    """After one failed start all nodes would be "up", and no cluster ever be made."""
    assert FOUND in started(es, "")


def test_a_node_that_is_told_whom_to_join_founds_nothing(es: Machine) -> None:
    """A second cluster would be made while the first one is up."""
    arguments = started(es, "es-2,es-3")
    assert not any("initial" in a and "nodes" in a for a in arguments)


def test_each_start_looks_for_all_nodes(es: Machine) -> None:
    """Nodes that come back after a power cut would not find one another."""
    for hosts in ("", "10.0.0.2"):
        (seeds,) = (a for a in started(es, hosts) if a.startswith(SEEDS))
        listed = seeds.removeprefix(SEEDS).split(",")
        assert listed == [*filter(None, [hosts]), "es-1", "es-2", "es-3"]


def test_a_start_without_a_master_opens_http_soon(es: Machine) -> None:
    """Each start of a whole cluster would take half a minute longer."""
    assert "-Ediscovery.initial_state_timeout=3s" in started(es, "")


def test_an_outage_of_the_store_starts_nothing(es: Machine) -> None:
    """A node that cannot ask would take itself for the first, and found a cluster."""
    done = es.run(es.environ["ES"], CODE="69")
    assert es.calls("elasticsearch") == []
    assert done.returncode != 0


@pytest.mark.parametrize("es", ["example"], indirect=True)
def test_a_cluster_that_exists_is_not_founded_again(es: Machine) -> None:
    """A replaced disk would found a second cluster while the others are down."""
    arguments = started(es, "", MAY_FOUND="no")
    assert not any("initial_master_nodes" in a for a in arguments)
    assert f"{SEEDS}es-1,es-2,es-3" in arguments


@pytest.mark.parametrize("es", ["example"], indirect=True)
def test_without_a_list_of_nodes_no_setting_is_empty(es: Machine) -> None:
    """ElasticSearch refuses an empty setting: the node would not start."""
    assert not any(a.endswith("=") for a in started(es, "", ES_NODES=""))
    assert f"{SEEDS}10.0.0.2" in started(es, "10.0.0.2", ES_NODES="")


@pytest.mark.parametrize("es", ["example"], indirect=True)
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('cluster.initial_master_nodes: ["node-1"]', 78),
        ("  initial_cluster_manager_nodes: node-1", 78),
        ('# cluster.initial_master_nodes: ["node-1"]', 0),
    ],
)
def test_a_node_that_founds_by_its_own_settings(
    es: Machine, line: str, code: int
) -> None:
    """ElasticSearch 8's packages write it: each node would found its own cluster."""
    config = es.root / "config/elasticsearch.yml"
    config.parent.mkdir()
    config.write_text(f"cluster.name: es\n{line}\n")
    done = es.run(es.environ["ES"], SERVICE_MONITOR_HOSTS="es-2")
    assert done.returncode == code
    assert len(es.calls("elasticsearch")) == (code == 0)
    assert not code or f"{config}: remove" in done.stderr


def settings() -> dict[str, str]:
    lines = (EXAMPLES / "systemd/es.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_probe_is_of_the_address_that_others_reach() -> None:
    """With network.host set nothing listens on 127.0.0.1: the node is never up."""
    url = urlsplit(settings()["SERVICE_MONITOR_URL"])
    assert url.hostname == settings()["SERVICE_MONITOR_HOST"]
    assert url.hostname in settings()["ES_NODES"].split(",")
    for page in (README, ES_PAGE, ROOT / "docs/commands.md"):
        probed = re.findall(r" run .*--monitor-url=(\S+) .*-- start", page.read_text())
        assert {urlsplit(url).hostname for url in probed} == {url.hostname}, page.name


# Galera


@pytest.fixture
def galera(machine: Machine) -> Machine:
    data = machine.root / "mysql"
    data.mkdir()
    script = (EXAMPLES / "galera/galera-node").read_text()
    machine.environ["NODE"] = script.replace("/var/lib/mysql", str(data))
    machine.program("bin/mariadb-install-db", f"mkdir {data}/mysql", "exit ${CODE:-0}")
    machine.program("bin/galera_recovery", "echo --wsrep_start_position=u:7")
    machine.program("bin/galera-check", '[ "$1" ] && echo uuid-1')
    machine.program("bin/mariadbd", "exit ${DIES:-0}")
    return machine


def founder(galera: Machine, **environ: str) -> subprocess.CompletedProcess[str]:
    first = {"SERVICE_MONITOR_FIRST": "1", "SERVICE_MONITOR_HOSTS": ""}
    return galera.run(galera.environ["NODE"], **(first | environ))


@pytest.mark.parametrize(("cut_off", "again"), [("CODE", 1), ("DIES", 0)])
def test_galera_founds_after_a_first_start_that_failed(
    galera: Machine, cut_off: str, again: int
) -> None:
    """A founder that was killed once would refuse for ever to found."""
    assert founder(galera, **{cut_off: "1"}).returncode == 1
    done = founder(galera)
    assert done.returncode == 0, done.stderr
    assert len(galera.calls("mariadb-install-db")) == again
    (arguments,) = galera.calls("mariadbd")
    assert "--wsrep-new-cluster" in arguments


def test_galera_keeps_data_that_it_founded_a_cluster_with(galera: Machine) -> None:
    """The data of a cluster that was up would be thrown away at the next start."""
    assert founder(galera).returncode == 0
    data = galera.root / "mysql"
    (data / "founding").unlink()  # by galera-check
    (data / "grastate.dat").write_text("uuid:    uuid-1\nsafe_to_bootstrap: 0\n")
    (data / "mysql/table").touch()
    for _ in range(2):
        done = founder(galera)
        assert done.returncode == 78
        assert "was not the last to stop" in done.stderr
    assert (data / "mysql/table").exists()
    assert founder(galera, MAY_FOUND="no").returncode == 78


def test_galera_founds_again_what_was_never_up(galera: Machine) -> None:
    """A founder that crashed just before its first "up" would never start again."""
    assert founder(galera).returncode == 0
    state = galera.root / "mysql/grastate.dat"
    state.write_text("uuid:    uuid-1\nsafe_to_bootstrap: 0\n")
    assert founder(galera).returncode == 0
    assert state.read_text() == "uuid:    uuid-1\nsafe_to_bootstrap: 1\n"
    assert founder(galera, MAY_FOUND="no").returncode == 78


def test_galera_check_ends_the_try_to_found_when_the_node_serves(
    galera: Machine,
) -> None:
    """A node that lost its state file later would found a second cluster."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    mark = galera.root / "mysql/founding"
    mark.write_text("made\n")
    galera.program("bin/mariadb", f"cat {galera.root}/status")
    script = (EXAMPLES / "galera/galera-check").read_text()
    for old, new in (("/var/lib/mysql/founding", str(mark)), ("= 9200", f"= {port}")):
        assert old in script
        script = script.replace(old, new)
    file = galera.root / "check"
    file.write_text(script)
    path = f"{galera.root}/bin:{os.environ['PATH']}"
    with subprocess.Popen([sys.executable, file], env={"PATH": path}) as check:
        try:
            told = {"wsrep_ready": "ON", "wsrep_cluster_status": "Primary"}
            for state, code, left in (("1", 503, True), ("4", 200, False)):
                told["wsrep_local_state"] = state
                told["wsrep_cluster_state_uuid"] = "uuid-1"
                lines = "".join(f"{name}\t{value}\n" for name, value in told.items())
                (galera.root / "status").write_text(lines)
                assert answer(port) == code
                assert mark.exists() == left
        finally:
            check.terminate()


def answer(port: int) -> int:
    """Ask the check, which may just be starting, for its verdict."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        finally:
            connection.close()


def test_galera_never_takes_data_without_a_mark_for_a_failed_start(
    galera: Machine,
) -> None:
    """A database that was there before the cluster would be deleted."""
    (galera.root / "mysql/mysql").mkdir()
    (galera.root / "mysql/shop").touch()
    assert founder(galera).returncode == 78
    assert (galera.root / "mysql/shop").exists()


# RabbitMQ


@pytest.fixture
def rabbit(machine: Machine) -> Machine:
    script = (EXAMPLES / "rabbitmq/rabbitmq-node").read_text()
    server = machine.root / "bin/rabbitmq-server"
    machine.environ["NODE"] = re.sub("(?m)^server=.*$", f"server={server}", script)
    start = (EXAMPLES / "rabbitmq/rabbitmq-start").read_text()
    machine.environ |= {"START": start, "HOME": str(machine.root), "COOKIE": "x"}
    data = machine.root / "mnesia/rabbit@node-1"
    machine.program("bin/hostname", "echo node-1")
    machine.program("bin/service-monitor")
    machine.program("bin/rabbitmqctl")
    machine.program(
        "bin/rabbitmq-server",
        f"mkdir -p {data}",
        "[ $RABBITMQ_NODE_PORT ] && exec sleep 20",
        'if [ "$DIES" ]; then exit 1; fi',
        f"echo '[rabbit@node-1]' >{data}/cluster_nodes.config",
    )
    return machine


def rabbit_node(
    rabbit: Machine, hosts: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    told = {"SERVICE_MONITOR_HOSTS": hosts}
    told["SERVICE_MONITOR_FIRST"] = "0" if hosts else "1"
    return rabbit.run(rabbit.environ["NODE"], **(told | environ))


def test_rabbitmq_says_why_a_first_start_that_failed_joins_nothing(
    rabbit: Machine,
) -> None:
    """A node whose first start was cut off would end at each start without a reason."""
    assert rabbit_node(rabbit, "", DIES="1").returncode == 1
    for told in ({"hosts": "node-2"}, {"hosts": "", "MAY_FOUND": "no"}):
        done = rabbit_node(rabbit, **told)
        assert done.returncode == 78
        assert f"If it holds nothing, empty {rabbit.root}" in done.stderr
    assert rabbit_node(rabbit, "").returncode == 0


def test_rabbitmq_queues_alone_after_a_first_start_that_failed(rabbit: Machine) -> None:
    """Two nodes without data would start at the same time: two clusters."""
    assert rabbit_node(rabbit, "", DIES="1").returncode == 1
    assert rabbit.run(rabbit.environ["START"]).returncode == 0
    assert "--slots=1 " in rabbit.calls("service-monitor")[0]


def test_rabbitmq_keeps_data_that_it_founded_a_cluster_with(rabbit: Machine) -> None:
    """The data of a cluster that was up would be thrown away at the next start."""
    assert rabbit_node(rabbit, "").returncode == 0
    table = rabbit.root / "mnesia/rabbit@node-1/table"
    table.touch()
    assert rabbit.run(rabbit.environ["START"]).returncode == 0
    assert "--slots=100 " in rabbit.calls("service-monitor")[0]
    assert rabbit_node(rabbit, "").returncode == 0
    assert table.exists()
    assert "not of the cluster" in rabbit_node(rabbit, "node-2").stderr


def test_rabbitmq_never_takes_data_without_a_mark_for_a_failed_start(
    rabbit: Machine,
) -> None:
    """Queues of a node whose list of members was lost would be deleted."""
    data = rabbit.root / "mnesia/rabbit@node-1"
    data.mkdir(parents=True)
    (data / "table").touch()
    done = rabbit_node(rabbit, "node-2")
    assert done.returncode == 78
    assert "does not say of which cluster" in done.stderr
    assert (data / "table").exists()

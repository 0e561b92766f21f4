"""The image as its users run it: `docker run service_monitor ...`."""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from integration.conftest import Containers, Result
from integration.images import PYTHON_IMAGE, ROOT
from integration.support.dynamodb import CREDENTIALS, REGION, start_dynamodb
from integration.support.engine import network
from integration.support.etcd import Etcd, start_etcd

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.docker
MEGABYTE = 1_000_000
SECOND = 1_000_000_000  # as the engine counts
LOCKED_DOWN = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
# A service on port 9200 that answers 200.
SERVICE = ("python", "-m", "http.server", "9200")


@dataclass(frozen=True)
class Cluster:
    """An etcd on a Docker network of its own."""

    server: Etcd
    network: str

    @property
    def joined(self) -> dict[str, object]:
        """Options for a container on the network that uses this etcd."""
        store = {"SERVICE_MONITOR_STORE": "etcd://etcd:2379"}
        return {"network": self.network, "environment": store}

    def beside(self, container_id: str) -> dict[str, object]:
        """Options for a container that shares the network address of another one."""
        return {**self.joined, "network": f"container:{container_id}"}

    def keys(self, part: str) -> list[str]:
        """List the keys in the store that contain `part`."""
        everything = base64.b64encode(b"\0").decode()  # from this key up to the end
        body = {"key": everything, "range_end": everything, "keys_only": True}
        found = self.server.call("POST", "/v3/kv/range", body).json().get("kvs", [])
        keys = [base64.b64decode(kv["key"]).decode() for kv in found]
        return [key for key in keys if part.lower() in key]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (
        network() as own,
        start_etcd(prefer="docker", network=own) as server,
    ):
        yield Cluster(server, own.name)


def eventually(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)


def stopped(containers: Containers, container: Container) -> Result:
    """Stop a container as `docker stop` does; it has to end within 2 s."""
    before = time.time()  # the engine's clock, which is this machine's, says the end
    container.kill("SIGTERM")
    result = containers.result(container)
    container.reload()
    ended = datetime.fromisoformat(container.attrs["State"]["FinishedAt"])
    assert ended.timestamp() - before < 2
    return result


def test_says_how_to_use_it(containers: Containers) -> None:
    """A first `docker run service_monitor` would leave the user at a loss."""
    result = containers.run()
    assert result.code == 0
    for command in ("watch", "hosts", "acquire-lease", "release-lease", "status"):
        assert command in result.stdout


def test_tells_its_version(containers: Containers) -> None:
    """Nobody could say which version a host runs."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (version,) = re.findall("^ARG VERSION=(.+)$", dockerfile, re.MULTILINE)
    result = containers.run("--version")
    assert result.code == 0
    assert result.stdout.split()[-1] == version
    labels = containers.client.images.get(containers.image).labels
    assert labels["org.opencontainers.image.version"] == version


def test_is_not_root(containers: Containers) -> None:
    """A hole in the sidecar would give root; runAsNonRoot would refuse the image."""
    user = containers.client.images.get(containers.image).attrs["Config"]["User"]
    assert user.partition(":")[0].isdigit()  # a name could not be proven to be non-root
    result = containers.run("-c", "import os; print(os.getuid())", entrypoint="python")
    assert int(result.stdout) > 0


def test_is_small(containers: Containers) -> None:
    """Every host of the fleet would pull what it does not need."""
    size, base = (
        containers.client.images.get(tag).attrs["Size"]
        for tag in (containers.image, PYTHON_IMAGE)
    )
    assert size - base < 80 * MEGABYTE


def test_has_labels(containers: Containers) -> None:
    """An operator could not trace an image back to what it was made from."""
    labels = containers.client.images.get(containers.image).labels
    for name in ("title", "description", "licenses", "version", "revision"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_runs_locked_down(containers: Containers, cluster: Cluster, label: str) -> None:
    """Hardened hosts, which forbid writing and all capabilities, could not use it."""
    options = {**cluster.joined, **LOCKED_DOWN}
    lease = containers.run(
        *("acquire-lease", "--label", label, "--service-id", "a", "--print-token"),
        **options,
    )
    assert (lease.code, lease.stdout.strip().isdigit()) == (0, True), lease
    hosts = containers.run("hosts", "--label", label, **options)
    assert (hosts.code, hosts.stdout) == (0, "\n"), hosts


@pytest.mark.parametrize(
    "variable", [{"PYTHONPATH": "/dev/shm"}, {"PYTHONHOME": "/nowhere"}], ids=str
)
def test_is_isolated_from_the_services_python(
    containers: Containers, cluster: Cluster, label: str, variable: dict[str, str]
) -> None:
    """A service in Python would break its sidecar by modules of its own."""
    environment = {"SERVICE_MONITOR_STORE": "etcd://etcd:2379"} | variable
    hosts = f"exec service-monitor hosts --label={label}"
    result = containers.run(
        *("-c", f"echo 'import nowhere' > /dev/shm/requests.py; {hosts}"),
        entrypoint="sh",
        network=cluster.network,
        environment=environment,
    )
    assert (result.code, result.stdout, result.stderr) == (0, "\n", "")


def test_stopped_watch_deregisters(
    containers: Containers, cluster: Cluster, label: str
) -> None:
    """`docker stop` would hang for 10 s, and others would go on using a dead host."""
    service = containers.start(*SERVICE, image=PYTHON_IMAGE, network=cluster.network)
    watch = containers.start(
        *("watch", "--label", label, "--service-id", "a"),
        *("--monitor-url", "http://127.0.0.1:9200"),
        **cluster.beside(service.id),
    )
    eventually(lambda: cluster.keys(f"{label}/hosts/a"), "registered")
    result = stopped(containers, watch)
    assert result.code == 0, result
    assert result.stdout == ""
    (left,) = cluster.keys(label)
    assert left.endswith("/members/a")  # that it was stopped


@pytest.mark.promise(9)
def test_stopped_while_starting(
    containers: Containers, cluster: Cluster, label: str
) -> None:
    """A stop right after the start would be lost, as the kernel spares PID 1."""
    watch = containers.start(
        *("watch", "--label", label, "--service-id", "a"),
        *("--monitor-url", "http://127.0.0.1:9200"),
        **cluster.joined,
    )

    def booting() -> bool:
        command: str = watch.top()["Processes"][0][-1]
        return command.split()[0].endswith("/python")

    eventually(booting, "started")
    result = stopped(containers, watch)
    assert result.code == 0, result
    assert cluster.keys(label) == []


@pytest.mark.promise(9)
def test_stopped_waiter_leaves_the_queue(
    containers: Containers, cluster: Cluster, label: str
) -> None:
    """A host that is shut down while it waits would hold up all those behind it."""

    def acquire(service_id: str) -> tuple[str, ...]:
        return ("acquire-lease", "--label", label, "--service-id", service_id)

    assert containers.run(*acquire("holder"), **cluster.joined).code == 0
    waiter = containers.start(*acquire("waiter"), **cluster.joined)
    eventually(lambda: cluster.keys(f"{label}/lease/waiter"), "queued")
    stopped(containers, waiter)
    assert len(cluster.keys(label)) == 1  # the holder's


def test_a_stalled_watch_is_unhealthy(
    containers: Containers, cluster: Cluster, label: str
) -> None:
    """Nobody would see that a service is no longer watched."""
    own = containers.client.images.get(containers.image).attrs["Config"]["Healthcheck"]
    assert (own["Interval"] + own["Timeout"]) * own["Retries"] <= 60 * SECOND
    watch = containers.start(
        *("watch", "--label", label, "--service-id", "a", "--ttl=3s", "--interval=1s"),
        *("--monitor-url", "http://127.0.0.1:9200"),
        healthcheck={"interval": SECOND},  # all else is the image's
        **{**cluster.joined, **LOCKED_DOWN},
    )

    def health() -> str:
        watch.reload()
        state: str = watch.attrs["State"]["Health"]["Status"]
        return state

    eventually(lambda: health() == "healthy", "healthy")
    watch.kill("SIGSTOP")
    eventually(lambda: health() == "unhealthy", "unhealthy")
    watch.kill("SIGCONT")
    eventually(lambda: health() == "healthy", "healthy again")


ZOMBIES = """
import contextlib, glob
stats = []
for name in glob.glob("/proc/[0-9]*/stat"):
    with contextlib.suppress(OSError):  # it has ended since
        stats.append(open(name).read())
print([stat.rpartition(")")[2].split()[0] for stat in stats].count("Z"))
"""


@pytest.mark.promise(9)
def test_run_is_a_good_pid_1(
    containers: Containers, cluster: Cluster, label: str
) -> None:
    """Zombies would pile up, and `docker stop` take 10 s and leave the record."""
    service = "for i in 1 2 3; do (sleep 0.1 &); done; exec python -m http.server 9200"
    node = containers.start(
        *("run", "--label", label, "--service-id", "a"),
        *("--monitor-url", "http://127.0.0.1:9200", "--", "sh", "-c", service),
        **{**cluster.joined, **LOCKED_DOWN},
    )
    hosts = containers.run("hosts", "--label", label, "--wait", **cluster.joined)
    assert hosts.code == 0, hosts
    eventually(lambda: not cluster.keys(f"{label}/lease/a"), "lease released")

    def zombies() -> int:
        return int(node.exec_run(["python", "-c", ZOMBIES]).output)

    eventually(lambda: zombies() == 0, "no zombies")
    result = stopped(containers, node)
    assert result.code == 143, result
    (left,) = cluster.keys(label)
    assert left.endswith("/members/a")  # that it was stopped


def test_lines_of_the_2014_readme(containers: Containers, cluster: Cluster) -> None:
    """Units written for the first version of this tool would stop working."""
    service = containers.start(*SERVICE, image=PYTHON_IMAGE, network=cluster.network)
    lease = 'acquire-lease --label="MyService" --service-id="Service-0x3241dc3"'
    watch = (
        'watch --label="MyService" --service-id="Service-0x3241dc3" '
        '--monitor-url="http://127.0.0.1:9200"'
    )
    hosts = 'hosts --label="MyService"'
    result = containers.run(*shlex.split(lease), **cluster.beside(service.id))
    assert result.code == 0, result
    assert cluster.keys("myservice/lease/")
    containers.start(*shlex.split(watch), **cluster.beside(service.id))
    eventually(lambda: not cluster.keys("myservice/lease/"), "lease released")
    result = containers.run(*shlex.split(hosts), **cluster.joined)
    service.reload()
    address = service.attrs["NetworkSettings"]["Networks"][cluster.network]["IPAddress"]
    assert (result.code, result.stdout) == (0, f"{address}\n"), result


def test_finds_the_etcd_of_its_host(containers: Containers, label: str) -> None:
    """Without options, a container would not find the etcd that its host runs."""
    with network() as own:
        settings = containers.client.networks.get(own.name).attrs["IPAM"]["Config"]
        gateway = settings[0]["Gateway"]
        server = start_etcd(prefer="process")
        listen = f"http://{gateway}:2379,{server.base_url}"
        server.args.append(f"--listen-client-urls={listen}")
        with server:
            result = containers.run("hosts", "--label", label, network=own.name)
    assert (result.code, result.stdout) == (0, "\n"), result


def test_speaks_to_dynamodb(containers: Containers, label: str) -> None:
    """Users of AWS would need an image of their own."""
    with network() as own:
        settings = containers.client.networks.get(own.name).attrs["IPAM"]["Config"]
        with start_dynamodb(settings[0]["Gateway"]) as server:
            environment = CREDENTIALS | {
                "AWS_REGION": REGION,
                "AWS_ENDPOINT_URL_DYNAMODB": server.endpoint,
            }
            options = {"network": own.name, "environment": environment, **LOCKED_DOWN}
            store = "--store=dynamodb://service-monitor"

            def run(*command: str) -> str:
                result = containers.run(*command, store, **options)
                assert result.code == 0, result
                return result.stdout

            assert "made table service-monitor" in run("init-store")
            ours = ("--label", label, "--service-id", "a")
            assert run("acquire-lease", *ours, "--print-token") == "2\n"
            assert label.lower() in run("status")
            assert run("hosts", "--label", label) == "\n"
            run("release-lease", *ours)

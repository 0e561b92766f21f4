import contextlib
import http.client
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import fake_elasticsearch
from integration.fake_elasticsearch import Node, Server, addresses, ask, main

Serve = Callable[..., Node]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves a node, in the named cluster if there is one."""
    with contextlib.ExitStack() as stack:

        def start(name: str, uuid: str | None = None) -> Node:
            node = Node(name, "")
            server = Server("127.0.0.1", 0, node)
            node.address = f"127.0.0.1:{server.server_address[1]}"
            node.uuid, node.ready = uuid, bool(uuid)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return node

        yield start


def boot(node: Node, *seeds: Node) -> str:
    """Let a node find its cluster; it is up from then on."""
    said = node.discover([seed.address for seed in seeds], lambda: f"of-{node.name}")
    node.ready = True
    return said


@contextlib.contextmanager
def process(*options: str) -> Iterator[subprocess.Popen[str]]:
    program = fake_elasticsearch.__file__
    argv = [sys.executable, program, "--name", "n", "--host", "127.0.0.1", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def caught(pid: int) -> int:
    """Return the signals that a process has handlers for, one a bit."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("SigCgt:")[2].split()[0], 16)


def free_address() -> str:
    with Server("127.0.0.1", 0, Node("x", "")) as server:
        return f"127.0.0.1:{server.server_address[1]}"


def status(address: str) -> int | None:
    """Give the status of `/`, or None if the connection is refused."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=5)) as client:
        try:
            client.request("GET", "/")
            return client.getresponse().status
        except ConnectionRefusedError:
            return None


def test_boot_refuses_then_is_unavailable_then_ready() -> None:
    """Else the simulated probes would never meet what real ones meet during a boot."""
    address = free_address()
    seen = []
    with process("--port", address.split(":")[1], "--startup-time", "1"):
        deadline = time.monotonic() + 20
        while 200 not in seen and time.monotonic() < deadline:
            seen.append(status(address))
            time.sleep(0.02)
    assert [state for state, _ in itertools.groupby(seen)] == [None, 503, 200]


def test_booting_node_has_no_cluster_to_offer(serve: Serve) -> None:
    """Else nodes could join a node that has not decided yet, and never split."""
    booting = serve("booting")
    assert "cluster_uuid" not in ask(booting.address, "GET", "/")
    assert ask(booting.address, "GET", "/_cluster/health")["status"] == 503
    assert boot(serve("other"), booting) == "elected of-other"


def test_blind_nodes_split(serve: Serve) -> None:
    """Else the run without the lease would prove nothing."""
    one, two = serve("one"), serve("two")
    assert boot(one) == "elected of-one"
    assert boot(two) == "elected of-two"
    assert one.health()[1]["number_of_nodes"] == 1


def test_joins_the_first_seed_that_is_in_a_cluster(serve: Serve) -> None:
    """Else a dead or booting first seed would split the cluster by itself."""
    booting, first, second = serve("b"), serve("f", "first"), serve("s", "second")
    dead, node = Node("dead", free_address()), serve("node")
    said = boot(node, dead, node, booting, first, second)
    assert said == f"joined first through {first.address}"


def test_every_member_counts_the_live_members(serve: Serve) -> None:
    """Else the verdict on a cluster would depend on which node is asked."""
    one, two, three = serve("one"), serve("two"), serve("three")
    boot(one)
    boot(two, one)
    boot(three, two)
    assert [n.health()[1]["number_of_nodes"] for n in (one, two, three)] == [3, 3, 3]

    dead = Node("dead", free_address())
    one.join(dead.address)
    assert one.health()[1]["number_of_nodes"] == 3


def test_nodes_joining_at_once_through_one_seed_find_each_other(serve: Serve) -> None:
    """Else a start with several slots would look like a split although it is none."""
    seed, early, late = serve("seed", "u"), serve("early"), serve("late")
    seed.join(early.address)  # the answer to this is on its way to `early` ...
    boot(late, seed)  # ... when `late` has joined and tells it so
    boot(early, seed)
    assert early.peers() == sorted([seed.address, late.address])
    assert late.peers() == sorted([seed.address, early.address])


def test_answers_have_the_shape_of_elasticsearch(serve: Serve) -> None:
    """Else a check written for ElasticSearch could not be tried out here."""
    node = serve("node", "u")
    root = ask(node.address, "GET", "/")
    health: dict[str, Any] = ask(node.address, "GET", "/_cluster/health?pretty")
    assert root["name"] == "node"
    assert root["cluster_uuid"] == health["cluster_uuid"] == "u"
    assert root["cluster_name"] == health["cluster_name"] == "fake"
    assert (health["status"], health["number_of_nodes"]) == ("green", 1)


@pytest.mark.parametrize("body", [None, [], {"cluster_uuid": "u"}])
def test_rubbish_is_refused(serve: Serve, body: object) -> None:
    """Else a stray request could end a node in the middle of a simulation."""
    node = serve("node", "u")
    assert ask(node.address, "POST", "/_join", body)["status"] == 400
    assert ask(node.address, "POST", "/", body)["status"] == 404
    assert ask(node.address, "GET", "/nothing")["status"] == 404
    assert status(node.address) == 200


@pytest.mark.parametrize("phase", ["", "listening", "ready"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_in_any_phase(phase: str, number: signal.Signals) -> None:
    """Else a simulation, or `docker stop`, would hang for seconds per node."""
    port = free_address().split(":")[1]
    startup = {"": "3600", "listening": "1", "ready": "0"}[phase]
    with process("--port", port, "--startup-time", startup) as running:
        if phase:
            assert running.stdout
            assert phase in (line.strip() for line in running.stdout)
        else:
            # Nothing is said before it listens; and a signal that comes while Python
            # starts counts for nothing in the background, or is a traceback.
            deadline = time.monotonic() + 20
            while not caught(running.pid) >> (signal.SIGTERM - 1) & 1:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        running.send_signal(number)
        assert running.wait(10) in (0, -number)  # negative: not even Python was up


def test_seed_makes_clusters_repeatable() -> None:
    """Else two runs of a simulation with one seed could not be compared."""

    def elected(seed: str) -> str:
        port = free_address().split(":")[1]
        options = ("--port", port, "--startup-time", "0", "--seed", seed)
        with process(*options) as running:
            assert running.stdout
            return next(line for line in running.stdout if "elected" in line)

    assert elected("1") == elected("1")
    assert elected("1") != elected("2")


def test_seed_hosts_take_the_default_port() -> None:
    """Else the plain output of `hosts` would not do as the list of seed hosts."""
    assert addresses("a, 10.0.0.1:9300,,b", 9200) == [
        "a:9200",
        "10.0.0.1:9300",
        "b:9200",
    ]
    assert addresses("", 9200) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--host", "127.0.0.1"],
        ["--name", "n", "--host", "127.0.0.1", "--startup-time", "-1"],
        ["--name", "n", "--host", "127.0.0.1", "--startup-time", "nan"],
        ["--name", "n", "--host", "127.0.0.1", "--seed-hosts", "a:port"],
    ],
)
def test_bad_usage_exits_with_2(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a mistyped option would show as a cluster that never forms."""
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_port_in_use_is_told(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a leftover process would look like a service that boots for ever."""
    taken = serve("taken", "u").address
    options = ["--name", "n", "--host", "127.0.0.1", "--port", taken.split(":")[1]]
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main([*options, "--startup-time", "0"]) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert f"cannot listen on {taken}" in capsys.readouterr().err

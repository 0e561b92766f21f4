"""One fault at a time against the real commands, on a real cluster of three etcds."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.conftest import REQUIRED
from integration.faults.etcd_cluster import ChangeLog, EtcdCluster, obstacle
from integration.faults.processes import Command, Commands, wait_for
from integration.support.loopback import Loopback, answering, status
from service_monitor.net.calls import STOP_GRACE
from service_monitor.recipes.lease import WAITER_TTL
from service_monitor.stores.etcd.endpoints import DEFAULT_PREFIX

# The first may have to wait for the making of an image.
pytestmark = pytest.mark.timeout(120, func_only=True)

ELECTION = 10.0
"""Seconds within which a cluster that has a majority serves again; a bound."""
SOON = 8.0
"""Seconds within which a command on a healthy cluster is done; a bound."""

CREATE, GRANT = b'"create_revision": "0"', b'"mod_revision"'


@pytest.fixture(scope="module")
def shared() -> Iterator[EtcdCluster]:
    if reason := obstacle():
        pytest.skip(reason)
    with EtcdCluster(prefer="docker" if REQUIRED else None, proxied=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: EtcdCluster) -> Iterator[EtcdCluster]:
    yield shared
    shared.heal()
    shared.wait_healthy()


@pytest.fixture
def api() -> str:
    """Say which of etcd's two APIs to use; a test may name both."""
    return "etcd"


@pytest.fixture
def run(cluster: EtcdCluster, label: str, api: str) -> Iterator[Commands]:
    """Start commands that reach the store through the proxies."""
    with Commands(cluster.url_v2 if api == "etcd2" else cluster.url, label) as run:
        yield run


both = pytest.mark.parametrize("api", ["etcd", "etcd2"])


@pytest.fixture
def log(cluster: EtcdCluster, label: str) -> Iterator[ChangeLog]:
    with cluster.watch_log(f"{DEFAULT_PREFIX}/{label.lower()}/") as log:
        yield log


@pytest.fixture
def service() -> Iterator[str]:
    """Serve a healthy service, and give its URL."""
    server = Loopback(answering(status("200 OK")))
    yield server.url
    server.close()


def acquire(run: Commands, name: str, *options: str, store: str = "") -> Command:
    options = (f"--service-id={name}", f"--host={name}", "--print-token", *options)
    return run("acquire-lease", *options, store=store or None)


def held(run: Commands, name: str) -> Command:
    """Acquire the lease, which must be free."""
    command = acquire(run, name)
    assert command.wait(SOON) == 0, command
    return command


def queued(run: Commands, name: str) -> Command:
    """Start a waiter and return once it has seen its place."""
    command = acquire(run, name)
    command.wait_said("waiting, position", SOON)
    return command


def beside(cluster: EtcdCluster, run: Commands, name: str, *options: str) -> str:
    """Run a command past the proxies until the store serves it; give its stdout."""
    store = f"{run.store.partition(':')[0]}://{','.join(cluster.direct_endpoints)}"
    tries: list[Command] = []

    def done() -> bool:
        tries.append(run(name, *options, store=store))
        return tries[-1].wait() == 0

    wait_for(f"{name} to work", done, ELECTION)
    return tries[-1].stdout


def release(cluster: EtcdCluster, run: Commands, name: str) -> None:
    beside(cluster, run, "release-lease", f"--service-id={name}")


def tickets(cluster: EtcdCluster, run: Commands) -> dict[str, str]:
    """Return who holds or waits, in the order of the queue, and in which state."""
    found = json.loads(beside(cluster, run, "status", "--format=json"))["leases"]
    found.sort(key=lambda lease: lease["position"])
    return {lease["service_id"]: lease["state"] for lease in found}


def created(log: ChangeLog, name: str) -> list[int]:
    """List the create revisions of all tickets that this service id ever had."""
    puts = [c for c in log.changes() if c.key.endswith(f"/lease/{name}")]
    return [c.revision for c in puts if c.revision == c.create_revision]


def listed(run: Commands, *, store: str = "") -> str:
    command = run("hosts", store=store or None)
    assert command.wait(SOON) == 0, command
    return command.stdout.strip()


# Connections


@both
def test_a_first_endpoint_that_swallows_everything(
    cluster: EtcdCluster, run: Commands, service: str
) -> None:
    """One vanished member of three would stop every start of every node."""
    cluster.proxies[0].black_hole()
    assert acquire(run, "es-1").wait(SOON) == 0
    assert listed(run) == ""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    watch = run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1", 2 * SOON)
    watch.wait_said("startup lease released", SOON)
    watch.term()
    assert watch.wait(SOON) == 0
    assert listed(run) == ""


@pytest.mark.parametrize("hang", [False, True], ids=["reset", "silence"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    "request_", [b"/v3/lease/grant", CREATE, GRANT], ids=["ttl", "ticket", "lease"]
)
def test_a_write_whose_reply_is_lost(
    cluster: EtcdCluster,
    run: Commands,
    log: ChangeLog,
    label: str,
    request_: bytes,
    members: int,
    hang: bool,
) -> None:
    """A node would queue behind itself, or start without holding the lease."""
    cluster.proxies[0].lose_replies(match=request_, hang=hang)
    before = cluster.proxies[0].lost
    endpoints = ",".join(cluster.endpoints[:members])
    command = acquire(run, "es-1", store=f"etcd://{endpoints}")
    assert command.wait(2 * SOON) == 0, command
    assert cluster.proxies[0].lost == before + 1
    assert tickets(cluster, run) == {"es-1": "held"}
    log.wait_revision(cluster.revision(), SOON)
    assert len(created(log, "es-1")) == 1
    assert int(command.stdout) == log.changes()[-1].mod_revision


@pytest.mark.parametrize(
    ("api", "which"),
    [("etcd", "watch only"), ("etcd", "all"), ("etcd2", "all")],
)
def test_a_connection_that_dies_half_open_during_a_wait(
    cluster: EtcdCluster, run: Commands, which: str
) -> None:
    """The released lease would lie there until the waiter's own timeout."""
    held(run, "es-1")
    if which == "watch only":
        for proxy in cluster.proxies:
            proxy.lose_replies(1000, match=b"/v3/watch", hang=True)
    waiter = queued(run, "es-2")
    time.sleep(0.3)
    for proxy in cluster.proxies if which == "all" else ():
        proxy.silence()
    release(cluster, run, "es-1")
    released = time.monotonic()
    assert waiter.wait(2 * SOON) == 0, waiter
    assert waiter.ended is not None
    # "all": the look after 1 s may find a dead one first, for a third of 5 s.
    assert waiter.ended - released < (5 if which == "watch only" else 9)


# The cluster


def test_compaction_all_the_time(
    cluster: EtcdCluster, run: Commands, log: ChangeLog
) -> None:
    """A waiter would wait on in a history that is gone, and its turn be lost."""
    held(run, "es-1")
    waiters = {name: queued(run, name) for name in ("es-2", "es-3", "es-4")}
    over = threading.Event()

    def compact() -> None:
        while not over.wait(0.2):
            cluster.compact()

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        time.sleep(1)
        before = "es-1"
        for name, waiter in waiters.items():
            time.sleep(0.3)
            assert waiter.code is None, waiter
            release(cluster, run, before)
            assert waiter.wait(SOON) == 0, waiter
            before = name
    finally:
        over.set()
        thread.join()
    tokens = [int(waiter.stdout) for waiter in waiters.values()]
    assert tokens == sorted(tokens)


def test_the_leader_dies_during_a_hand_over(
    cluster: EtcdCluster, run: Commands, log: ChangeLog
) -> None:
    """A crash of the store at the wrong moment would lose a turn, or give it twice."""
    held(run, "es-1")
    first, second = queued(run, "es-2"), queued(run, "es-3")
    leader = cluster.leader()
    killer = threading.Timer(0.25, cluster.kill, [leader])
    killer.start()
    release(cluster, run, "es-1")
    assert first.wait(ELECTION + SOON) == 0, first
    killer.join()
    assert second.code is None, second
    release(cluster, run, "es-2")
    assert second.wait(ELECTION + SOON) == 0, second
    log.wait_revision(cluster.revision(), SOON)
    assert len(created(log, "es-2")) == len(created(log, "es-3")) == 1


@pytest.mark.promise(8)
@both
@pytest.mark.parametrize("dead", [2, 3], ids=["quorum lost", "all restarted"])
def test_an_outage_while_queued_keeps_the_place(
    cluster: EtcdCluster, run: Commands, dead: int
) -> None:
    """Maintenance of the store would shuffle or end every start under way."""
    held(run, "es-1")
    waiters = [queued(run, name) for name in ("es-2", "es-3")]
    for i in range(dead):
        cluster.kill(i)
    for waiter in waiters:
        waiter.wait_said("does not serve us, trying on", SOON)
    for i in range(dead):
        cluster.restart(i)
    cluster.wait_healthy()
    assert [*tickets(cluster, run)] == ["es-1", "es-2", "es-3"]
    for before, waiter in zip(("es-1", "es-2"), waiters, strict=True):
        assert waiter.code is None, waiter
        release(cluster, run, before)
        assert waiter.wait(ELECTION) == 0, waiter
        assert "our ticket expired" not in waiter.stderr


@pytest.mark.promise(8)
@both
def test_a_cut_off_member_gives_no_answer_rather_than_an_old_one(
    cluster: EtcdCluster, run: Commands, service: str, api: str
) -> None:
    """A node would see nobody, and form a second cluster."""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1", SOON)
    member = cluster.leader()
    cluster.partition(member)
    hosts = run("hosts", store=f"{api}://{cluster.endpoints[member]}")
    assert hosts.wait(SOON) == 69, hosts
    assert hosts.stdout == ""
    assert listed(run) == "es-1"  # the others know


def test_a_full_store_is_waited_out(
    cluster: EtcdCluster, run: Commands, label: str, service: str
) -> None:
    """A full store would fail every start, or hide the hosts that are there."""
    options = ("--service-id=es-1", "--host=es-1", f"--monitor-url={service}")
    run("watch", *options)
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1", SOON)
    cluster.fill()
    try:
        command = acquire(run, "es-2")
        command.wait_said("does not serve us, trying on", SOON)
        assert "space exceeded" in command.stderr
        assert listed(run) == "es-1"
        time.sleep(1)
        assert command.code is None, command
        assert tickets(cluster, run) == {}
    finally:
        cluster.drain()
    assert command.wait(SOON) == 0, command
    assert tickets(cluster, run) == {"es-2": "held"}


# Our own processes


@pytest.mark.promise(1, 2)
def test_a_waiter_that_was_frozen_past_its_ttl_queues_at_the_end(
    cluster: EtcdCluster, run: Commands, log: ChangeLog, label: str
) -> None:
    """A resumed machine would start on a turn that was given to others meanwhile."""
    held(run, "es-1")
    frozen, second = queued(run, "es-2"), queued(run, "es-3")
    frozen.stop()
    stopped = time.monotonic()
    wait_for("the end of es-2's ticket", lambda: "es-2" not in tickets(cluster, run))
    assert time.monotonic() - stopped < WAITER_TTL + SOON
    time.sleep(max(0.0, stopped + 1.1 * WAITER_TTL - time.monotonic()))
    third = queued(run, "es-4")
    release(cluster, run, "es-1")
    assert second.wait(SOON) == 0, second
    frozen.cont()
    frozen.wait_said("our ticket expired", SOON)
    frozen.wait_said("waiting, position", SOON)
    wait_for("es-2 queued", lambda: "es-2" in tickets(cluster, run), SOON)
    assert [*tickets(cluster, run)] == ["es-3", "es-4", "es-2"]
    for before, waiter in (("es-3", third), ("es-4", frozen)):
        assert waiter.code is None, waiter
        release(cluster, run, before)
        assert waiter.wait(SOON) == 0, waiter
    log.wait_revision(cluster.revision(), SOON)
    assert len(created(log, "es-2")) == 2
    old = created(log, "es-2")[0]
    states = [
        json.loads(c.value)["state"]
        for c in log.changes()
        if c.type == "PUT" and c.create_revision == old
    ]
    assert states == ["waiting"]


def test_a_frozen_watch_vouches_for_nobody(
    cluster: EtcdCluster, run: Commands, service: str
) -> None:
    """A dead machine's host would be joined, or a resumed one never listed again."""
    ttl = 3
    watch = run(
        *("watch", "--service-id=es-1", "--host=es-1", f"--monitor-url={service}"),
        *("--interval=1s", "--timeout=1s", f"--ttl={ttl}s"),
    )
    wait_for("es-1 in hosts", lambda: listed(run) == "es-1", SOON)
    watch.stop()
    wait_for("es-1 not in hosts", lambda: listed(run) == "", ttl + SOON)
    watch.cont()
    wait_for("es-1 in hosts again", lambda: listed(run) == "es-1", SOON)


def stopped_at(command: Command, delay: float) -> float:
    """Stop it so long after its start; return the seconds that its end took."""
    time.sleep(max(0.0, command.started + delay - time.monotonic()))
    begun = time.monotonic()
    command.term()
    assert command.wait(SOON) in (143, -15), command  # -15: not yet ours
    return time.monotonic() - begun


@pytest.mark.promise(9)
def test_a_stop_at_any_moment_leaves_nothing(
    cluster: EtcdCluster, run: Commands, label: str
) -> None:
    """A node that was stopped would be waited for: nobody starts for up to 15 s."""
    held(run, "es-0")
    for proxy in cluster.proxies:
        proxy.latency(0.1)  # most moments are then in the middle of a request
    moments = random.Random(3)
    late: set[str] = set()  # a machine too slow leaves no time for the store
    for turn in range(7):
        started = [acquire(run, f"es-{turn}-{n}") for n in range(3)]
        delays = sorted(moments.uniform(0, 1.2) for _ in started)
        with ThreadPoolExecutor(len(started)) as pool:
            took = list(pool.map(stopped_at, started, delays))
        for n, command in enumerate(started):
            if took[n] > STOP_GRACE:
                late.add(f"es-{turn}-{n}")
            else:
                assert "cannot take the ticket back" not in command.stderr
        assert tickets(cluster, run).keys() - late == {"es-0"}
    lapse = WAITER_TTL + SOON if late else 0
    wait_for("their end", lambda: tickets(cluster, run) == {"es-0": "held"}, lapse)


@pytest.mark.promise(9)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("request_", [CREATE, GRANT], ids=["ticket", "lease"])
def test_a_stop_between_a_write_and_its_reply_leaves_nothing(
    cluster: EtcdCluster, run: Commands, label: str, request_: bytes, members: int
) -> None:
    """What its owner does not know of yet would block the others, for up to 240 s."""
    proxy = cluster.proxies[0]
    proxy.lose_replies(match=request_, hang=True)
    before = proxy.lost
    endpoints = ",".join(cluster.endpoints[:members])
    command = acquire(run, "es-1", store=f"etcd://{endpoints}")
    wait_for("the write", lambda: proxy.lost > before, SOON)
    command.term()
    stopped = time.monotonic()
    code = command.wait(SOON)
    assert time.monotonic() - stopped < STOP_GRACE + 2
    assert (code, tickets(cluster, run)) == (143, {}), command


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("command", ["acquire-lease", "watch"])
def test_a_stop_on_connections_that_died_leaves_nothing(
    cluster: EtcdCluster, run: Commands, service: str, command: str, members: int
) -> None:
    """After a failover of the network, a node that was stopped would be waited for."""
    store = f"etcd://{','.join(cluster.endpoints[:members])}"
    name = ("--service-id=es-2", "--host=es-2")
    if command == "watch":
        stopped = run("watch", *name, f"--monitor-url={service}", store=store)
        stopped.wait_said("is up", SOON)
    else:
        held(run, "es-1")
        stopped = acquire(run, "es-2", store=store)
        stopped.wait_said("waiting, position", SOON)
    prefix = f"{DEFAULT_PREFIX}/{run.label.lower()}/"

    def ours() -> list[str]:
        return [key for key in cluster.records(prefix) if key.endswith("/es-2")]

    wait_for("the record", ours, SOON)
    time.sleep(0.3)
    for proxy in cluster.proxies:
        proxy.silence()
    stopped.term()
    begun = time.monotonic()
    code = stopped.wait(SOON)
    assert time.monotonic() - begun < STOP_GRACE + 2
    assert (code, ours()) == (0 if command == "watch" else 143, []), stopped

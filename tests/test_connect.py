"""A name with several addresses: one deadline, first come first served, all named."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from integration.support.black_hole import Place as Address
from integration.support.black_hole import black_hole, family_of, resolving
from integration.support.commands import HANG, wait_until
from integration.support.loopback import one_port, read_message, unused_port
from service_monitor.errors import Stopped, StoreRefused, StoreUnavailable, describe
from service_monitor.net import connect as module
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import NotConnected, connect
from service_monitor.net.resolve import resolve
from service_monitor.net.route import local_address
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Target, new_probe
from service_monitor.stores.dynamodb.place import DynamoPlace
from service_monitor.stores.dynamodb.store import DynamoStore
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.v2 import Etcd2Store
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.timing import now

HOLES = ["127.0.0.2", "::1"]
SOON = 3.0
"""Seconds that are enough for a working address, and less than a black hole costs."""


def needs(address: str) -> None:
    try:
        with socket.socket(family_of(address)) as sock:
            sock.bind((address, 0))
    except OSError:
        pytest.skip(f"no {address} on this machine: IPv6 is off, and not tested")


@pytest.fixture(params=HOLES)
def pair(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """Bind a port of a first address, of IPv4 or IPv6, and of 127.0.0.3."""
    needs(request.param)
    with one_port(request.param, "127.0.0.3") as sockets:
        yield sockets


@pytest.fixture
def hole(pair: list[socket.socket]) -> Iterator[Address]:
    """Give a black hole; on its port of 127.0.0.3 nobody listens."""
    with black_hole(pair[0]) as place:
        yield place


@pytest.fixture
def server(
    pair: list[socket.socket], hole: Address, monkeypatch: pytest.MonkeyPatch
) -> socket.socket:
    """Serve on the black hole's port; `both.test` is the hole first, then this one."""
    resolving(monkeypatch, both_test=[hole[0], "127.0.0.3"], hole_test=[hole[0]])
    pair[1].listen()
    return pair[1]


def test_a_black_hole_does_not_cost_the_deadline(
    server: socket.socket, hole: Address
) -> None:
    """A name with a dead AAAA record would never be reached, where curl needs 0.2 s."""
    begun = now()
    with connect("both.test", hole[1], HANG) as sock:
        assert sock.getpeername() == ("127.0.0.3", hole[1])
        assert sock.gettimeout() == HANG
    assert module.STAGGER * 0.9 < now() - begun < HANG / 2


def answering_http(server: socket.socket, body: bytes) -> threading.Thread:
    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, suppress(ConnectionError):
                    read_message(client)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                    client.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_probes_reach_the_address_that_works(
    server: socket.socket, hole: Address, scheme: str
) -> None:
    """A healthy service would be down because its name has a second address."""
    answering_http(server, b"")
    begun = now()
    target = Target(read_monitored_url(f"{scheme}://both.test:{hole[1]}"), HANG)
    assert new_probe(target, Bounds())().ok
    assert now() - begun < HANG / 2


def test_etcd_is_reached_at_the_address_that_works(
    server: socket.socket, hole: Address
) -> None:
    """The store would be away for ever, where etcdctl needs 0.03 s."""
    answering_http(server, b'{"header": {"revision": "7"}}')
    begun = now()
    store = Etcd3Store([Endpoint("http", "both.test", hole[1])], Access(), Bounds())
    assert store.list("es/").cursor == 7
    assert now() - begun < SOON


def test_etcd_v2_is_reached_at_the_address_that_works(
    server: socket.socket, hole: Address
) -> None:
    """The store would be away for ever, where etcdctl needs 0.03 s."""
    answering_http(server, b'{"action": "get", "node": {"key": "/x", "dir": true}}')
    begun = now()
    store = Etcd2Store([Endpoint("http", "both.test", hole[1])], Access(), Bounds())
    assert store.list("es/").records == ()
    assert now() - begun < SOON
    store.close()


def dynamodb_at(port: int, monkeypatch: pytest.MonkeyPatch) -> DynamoStore:
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.setenv(name, "x")
    place = DynamoPlace(
        "table", region="eu-west-1", endpoint=f"http://both.test:{port}"
    )
    return DynamoStore(place, Bounds())


def test_dynamodb_is_reached_at_the_address_that_works(
    server: socket.socket, hole: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection would cost two of the five seconds that a call has."""
    answering_http(server, b"hello")
    store = dynamodb_at(hole[1], monkeypatch)
    store._aws.endpoint()  # boto3 takes seconds to get ready, on a busy machine
    begun = now()
    with pytest.raises(StoreRefused, match="not DynamoDB, by its answer"):
        store.list("es/")
    assert now() - begun < 2.0
    store.close()


def test_dynamodb_names_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would know which address of a name is at fault."""
    port = unused_port()
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])
    store = dynamodb_at(port, monkeypatch)
    said = rf"127\.0\.0\.2:{port} connection refused, 127\.0\.0\.3:{port} connection"
    with pytest.raises(StoreUnavailable, match=said):
        store.list("es/")


def test_a_failure_names_each_address(
    hole: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know which address of a name is at fault (envoy#30743)."""
    resolving(monkeypatch, both_test=[hole[0], "127.0.0.3"])
    dead = f"[{hole[0]}]" if ":" in hole[0] else hole[0]
    said = f"{dead}:{hole[1]} no answer, 127.0.0.3:{hole[1]} connection refused"
    for scheme in "http", "tcp":
        probe = new_probe(
            Target(read_monitored_url(f"{scheme}://both.test:{hole[1]}"), 2.0), Bounds()
        )
        begun = now()
        assert probe() == (False, said)
        assert 1.5 < now() - begun < HANG
    for store in Etcd3Store, Etcd2Store:
        endpoint = Endpoint("http", "both.test", hole[1])
        with pytest.raises(StoreUnavailable) as failed:
            store([endpoint], Access(), Bounds(), call_timeout=2.0).list("es/")
        assert str(failed.value) == f"{endpoint}: {said}"


def test_an_address_that_was_given_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, hole: Address
) -> None:
    """Every log line of a dead service would say its address twice."""
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", unused_port(), HANG)
    with pytest.raises(TimeoutError):
        connect(*hole, 0.3)
    resolving(monkeypatch, one_test=["127.0.0.1"])
    port = unused_port()
    with pytest.raises(NotConnected) as failed:
        connect("one.test", port, HANG)
    assert describe(failed.value) == f"127.0.0.1:{port} connection refused"


def test_many_addresses_make_no_long_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of a load balancer with 30 addresses would fill the log and the store."""
    resolving(monkeypatch, many_test=[f"127.0.1.{n}" for n in range(1, 31)])
    with pytest.raises(NotConnected, match=r"127\.0\.1\.4:.*refused, and 26 more$"):
        connect("many.test", unused_port(), HANG)


def test_a_refused_address_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection to `localhost` would take a quarter of a second more."""
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        begun = now()
        connect("both.test", port, HANG * 9, stagger=HANG).close()
        assert now() - begun < HANG / 2


def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five dead addresses of IPv6 would come before the first of IPv4."""
    found = [(socket.AF_INET6, (f"2001:db8::{n}", 1, 0, 0)) for n in (1, 2, 3)]
    found += [(socket.AF_INET, ("10.0.0.1", 1))] * 2  # type: ignore[list-item]
    answers = [(family, 1, 6, "", place) for family, place in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    assert [str(place) for place in resolve("h", 1)] == [
        "[2001:db8::1]:1",
        "10.0.0.1:1",
        "[2001:db8::2]:1",
        "[2001:db8::3]:1",
    ]


def test_the_losers_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe would leave a connection open at each round, and the service count it."""
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])
    real = socket.socket.connect_ex
    sockets = []

    def connect_ex(sock: socket.socket, place: Address) -> int:
        sockets.append(sock)
        return real(sock, place)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    with one_port("127.0.0.3", "127.0.0.2") as (second, first):
        for listener in first, second:
            listener.listen()
        port, before = second.getsockname()[1], len(os.listdir("/proc/self/fd"))
        at_once = partial(connect, "both.test", port, HANG, stagger=0.0)
        won = bounded(at_once, HANG, Bounds())
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert [sock.fileno() for sock in sockets if sock is not won] in ([], [-1])
        for listener in first, second:
            listener.settimeout(0.5)
            with suppress(TimeoutError), listener.accept()[0] as peer:
                peer.settimeout(SOON)
                if peer.getsockname() != won.getpeername():
                    assert peer.recv(1) == b""
        won.close()


def test_a_stop_ends_it_at_once_and_leaves_no_thread(hole: Address) -> None:
    """SIGTERM would wait for a black hole, and a thread stay behind at each probe."""
    bounds, threads = Bounds(), threading.active_count()
    threading.Timer(0.2, bounds.stop.request).start()
    begun = now()
    with pytest.raises(Stopped):
        bounded(lambda: connect(*hole, HANG), HANG, bounds, waits=True)
    assert now() - begun < HANG / 2
    wait_until(lambda: threading.active_count() <= threads)
    assert now() - begun < HANG / 2


def test_a_name_is_not_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator would look for a network fault where a name is misspelt."""
    with pytest.raises(socket.gaierror):
        connect("x" * 70, 1, HANG)
    probe = new_probe(
        Target(read_monitored_url("http://no-such-host.invalid:1"), HANG), Bounds()
    )

    def getaddrinfo(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert probe() == (False, "host name not found")


def test_what_this_machine_lacks_is_no_fault_of_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log would blame two addresses for the files that are open here."""
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])

    def full(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(module, "adopt", full)
    with pytest.raises(OSError, match="Too many open files"):
        connect("both.test", unused_port(), HANG)


# the address of this machine


def leading_out_by(monkeypatch: pytest.MonkeyPatch, **by: str) -> None:
    """Let the route to the last number of an address lead out by this one of ours."""
    monkeypatch.setattr("service_monitor.net.route.is_only_here", lambda address: False)
    real = socket.socket.connect

    def connect(sock: socket.socket, place: Address) -> None:
        if sock.type == socket.SOCK_DGRAM:
            sock.bind((by["_" + place[0].rpartition(".")[2]], 0))
        real(sock, place)

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_the_local_address_is_of_the_route_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others would be told an address of IPv6 that nobody reaches."""
    leading_out_by(monkeypatch, _2="127.0.0.9", _3="127.0.0.1")
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])
    with one_port("127.0.0.2", "127.0.0.3") as (dead, server):
        server.listen()
        with black_hole(dead) as hole:
            assert local_address("both.test", hole[1], HANG) == "127.0.0.1"


def test_a_local_address_that_is_in_doubt_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the store is away a node would publish an address that may be wrong."""
    leading_out_by(monkeypatch, _2="127.0.0.9", _3="127.0.0.1")
    resolving(monkeypatch, both_test=["127.0.0.2", "127.0.0.3"])
    with pytest.raises(NotConnected, match=r"127\.0\.0\.2.*, 127\.0\.0\.3"):
        local_address("both.test", unused_port(), HANG)


def test_of_addresses_that_mean_nothing_elsewhere_any_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `watch` on the store's machine would wait for the store at its start."""
    needs("::1")
    resolving(monkeypatch, here_test=["::1", "127.0.0.1"])
    assert local_address("here.test", unused_port(), HANG) == "::1"


def test_the_local_address_needs_no_store_where_the_route_tells(hole: Address) -> None:
    """A node would wait for its store only to learn its own address."""
    assert family_of(local_address(*hole, HANG)) == family_of(hole[0])


def test_an_address_without_a_route_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host without IPv6 could not use a name that has it."""
    resolving(monkeypatch, both_test=["192.0.2.1", "127.0.0.3"])
    real = socket.socket.connect

    def no_route(sock: socket.socket, place: Address) -> None:
        if place[0] == "192.0.2.1":
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        real(sock, place)

    monkeypatch.setattr(socket.socket, "connect", no_route)
    assert local_address("both.test", 1, HANG) == "127.0.0.1"
    resolving(monkeypatch, none_test=["192.0.2.1"])
    with pytest.raises(OSError, match="unreachable"):
        local_address("none.test", 1, HANG)

"""The fault matrix: the name server is dead."""

from __future__ import annotations

import errno
import random
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from integration.faults.processes import Commands, wait_for
from integration.matrix.scenes import (
    GOOD,
    by_way_of,
    failed,
    listed,
    mounting,
    node,
    states,
    stopped,
    stored,
)
from integration.support.loopback import (
    Serve,
)

pytestmark = pytest.mark.timeout(120, func_only=True)
DEAD_NAME = "etcd-1.dead.example"


class NameServer:
    """Says that every name is 127.0.0.1; or while it is dead, nothing."""

    def __init__(self) -> None:
        self.dead = True
        self.cli: tuple[str, ...] = ()
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self.address = ""
        while not self.address:
            try:
                self._socket.bind((f"127.53.{random.randrange(256)}.53", 53))
                self.address = self._socket.getsockname()[0]
            except OSError as error:  # somebody may have that one
                if error.errno != errno.EADDRINUSE:
                    raise
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"", (self.address, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            question = query[12 : query.index(b"\0", 12) + 5]
            found = question[-4:] == b"\0\x01\0\x01"  # of type A, for IPv4
            head = b"\x81\x80\0\1\0" + bytes([found]) + b"\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" * found
            if not self.dead:
                self._socket.sendto(query[:2] + head + question + record, client)


@pytest.fixture(scope="module")
def only_name_server(root: None) -> Iterator[NameServer]:
    with closing(NameServer()) as server:
        yield server


@pytest.fixture
def names(only_name_server: NameServer, tmp_path: Path) -> NameServer:
    """Give a dead name server, which commands by way of its `cli` ask alone."""
    only_name_server.dead = True
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {only_name_server.address}\n")
    script = f"mount --bind {shlex.quote(str(conf))} /etc/resolv.conf"
    only_name_server.cli = mounting(script)
    return only_name_server


@pytest.mark.promise(8)
def test_a_dead_name_server(
    names: NameServer, run: Commands, serve: Serve, chance: random.Random
) -> None:
    """It would stop every start, hang commands, or pass for "nobody is up"."""
    url = f"--monitor-url={serve(GOOD).url}"
    both = run.store.replace("//", f"//{DEAD_NAME},")
    with Commands(both, run.label, names.cli) as some:
        watch = some("watch", "--service-id=es-1", url)
        hosts = some("hosts")
        lease = some("acquire-lease", "--service-id=es-2")
        with Commands(f"etcd://{DEAD_NAME}", run.label, names.cli) as none:
            refused = none("hosts")
            impatient = node(none, "acquire-lease", "es-3", "--acquire-timeout=1s")
            lasting = [
                node(none, "acquire-lease", "es-4"),
                none("acquire-lease", "--service-id=es-5"),  # asks for its address
                none("watch", "--service-id=es-6", url),
                none("hosts", "--wait"),
            ]
            time.sleep(0.5 + chance.uniform(0, 1.5))
            assert [stopped(command) for command in lasting] == [143, 143, 0, 143]
            assert "not acquired within 1 s" in failed(impatient, 1)
            assert f"{DEAD_NAME}:2379: no answer in time" in failed(refused, 69)
        for command in hosts, lease:
            assert command.wait() == 0, command
        watch.wait_said("is up")
        wait_for("es-1 up", lambda: listed(run) == "127.0.0.1")
        assert stopped(watch) == 0
    assert (states(run), states(run, "hosts")) == ({"es-2": "held"}, {})


def test_a_service_behind_a_dead_name(
    names: NameServer, run: Commands, serve: Serve
) -> None:
    """A node that nobody can find would be listed, or `watch` stand still with it."""
    names.dead, ttl = False, 6
    url = f"http://es-1.example:{serve(GOOD).port}"
    with by_way_of(run, *names.cli) as asking:
        watch = node(
            *(asking, "watch", "es-1", f"--monitor-url={url}", f"--ttl={ttl}s"),
            *("--interval=500ms", "--timeout=500ms"),
        )
        wait_for("es-1 up", lambda: states(run, "hosts") == {"es-1": "up"})
        names.dead = True
        fall = wait_for("es-1 down", lambda: states(run, "hosts") == {"es-1": "down"})
        assert fall < 3 * 2 * (0.5 + 0.5)
        time.sleep(ttl + 0.5)
        reasons = [record["reason"] for record in stored(run, "hosts").values()]
        assert reasons == ["no answer within 0.5 s"]
        names.dead = False
        wait_for("es-1 up", lambda: states(run, "hosts") == {"es-1": "up"})
        names.dead = True
        time.sleep(0.7)
        assert stopped(watch) == 0
        assert states(run, "hosts") == {}

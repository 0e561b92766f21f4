"""The commands as a user meets them: what they print, and how they end."""

from __future__ import annotations

import json
import re
import socket

import pytest

from integration.support.commands import Run, acquire, error_of, keys, register
from integration.support.loopback import Serve, answering, status, unused_port
from service_monitor.errors import StoreUnavailable
from service_monitor.records import Registration, Ticket, hosts_prefix, lease_prefix
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore


def test_no_host_is_an_empty_line(run: Run) -> None:
    """The first node would not start."""
    assert run("hosts", "--label=es") == (0, "\n", "")


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        ([], "10.0.0.2,10.0.0.10,es-2,es-10\n"),
        (["--format=comma"], "10.0.0.2,10.0.0.10,es-2,es-10\n"),
        (["--format=lines"], "10.0.0.2\n10.0.0.10\nes-2\nes-10\n"),
        (["--format=json"], '["10.0.0.2", "10.0.0.10", "es-2", "es-10"]\n'),
        (["--port=1"], "10.0.0.2:1,10.0.0.10:1,es-2:1,es-10:1\n"),
        (
            ["--port=1", "--format=json"],
            '["10.0.0.2:1", "10.0.0.10:1", "es-2:1", "es-10:1"]\n',
        ),
        (["--wait"], "10.0.0.2,10.0.0.10,es-2,es-10\n"),
        (["--wait", "4"], "10.0.0.2,10.0.0.10,es-2,es-10\n"),
    ],
)
def test_hosts_prints_whom_to_join(
    run: Run, store: Store, argv: list[str], out: str
) -> None:
    """A service could not read whom to join."""
    for number, host in enumerate(["es-10", "10.0.0.10", "es-2", "10.0.0.2", "es-2"]):
        register(store, f"n{number}", host)
    register(store, "n9", "es-9", "down")
    assert run("hosts", "--label=ES", *argv) == (0, out, "")


def test_an_ipv6_host_with_a_port(run: Run, store: Store) -> None:
    """The port would be taken for a part of the address."""
    register(store, "n1", "2001:db8::1")
    assert run("hosts", "--label=es", "--port=1").out == "[2001:db8::1]:1\n"
    assert run("hosts", "--label=es").out == "2001:db8::1\n"


@pytest.mark.parametrize("name", ["--host", "--host-ip"])
def test_the_2014_tools_host_ip_changes_nothing(
    run: Run, store: Store, name: str
) -> None:
    """Several nodes of one machine would each see an empty cluster, and split."""
    register(store, "n1", "10.0.0.1")
    argv = ("hosts", "--label=es")
    assert run(*argv, f"{name}=10.0.0.1").out == "10.0.0.1\n"
    assert run(*argv, env={"SERVICE_MONITOR_HOST": "10.0.0.1"}).out == "10.0.0.1\n"


def test_waiting_means_for_one_host(run: Run, store: Store) -> None:
    """The second node would wait for a third."""
    register(store, "n1", "10.0.0.1")
    assert run("hosts", "--label=es", "--wait").out == "10.0.0.1\n"


def test_hosts_prints_the_ports_that_are_registered(run: Run, store: Store) -> None:
    """Two nodes on one machine could not be told apart."""
    for name, port in ("a", 9301), ("b", 9302), ("c", None):
        value = Registration(name, "10.0.0.1", "up", "", "n", port=port).to_json()
        store.create(hosts_prefix("es") + name, value, 60)
    argv = ("hosts", "--label=es")
    assert run(*argv).out == "10.0.0.1,10.0.0.1:9301,10.0.0.1:9302\n"
    listed = ["10.0.0.1:9300", "10.0.0.1:9301", "10.0.0.1:9302"]
    assert json.loads(run(*argv, "--port=9300", "--format=json").out) == listed
    # One of them registered 9301 itself.
    assert run(*argv, "--port=9301").out == "10.0.0.1:9301,10.0.0.1:9302\n"
    assert run(*argv, "--wait=3", "--timeout=9s").code == 0
    assert run(*argv, "--wait=3", "--port=9301", "--timeout=50ms").code == 1


def test_waiting_for_hosts_has_an_end(run: Run, store: Store) -> None:
    """A unit would hang for ever on a cluster that never forms."""
    register(store, "n1", "10.0.0.1")
    outcome = run("hosts", "--label=es", "--wait=2", "--timeout=100ms")
    assert outcome.code == 1
    assert error_of(outcome) == "label es: 1 of 2 hosts up after 0.1 s: 10.0.0.1"


# leases


def test_the_token_stands_alone(run: Run) -> None:
    """A script could not use the token."""
    first = acquire(run, "es-1", "--print-token")
    assert first.code == 0
    assert re.fullmatch(r"[1-9][0-9]*\n", first.out)
    assert (
        f"label es: es-1 has the lease, token {first.out.strip()}, for up to 4 min"
        in (first.err)
    )
    again = acquire(run, "es-1", "--print-token")
    assert int(again.out) > int(first.out)


def test_without_being_asked_nothing_is_printed(run: Run) -> None:
    """A unit's log would have a lone number in it."""
    assert acquire(run, "es-1").out == ""


def test_not_getting_the_lease_is_exit_1(run: Run, store: Store) -> None:
    """A node would start although it is not its turn, and leave its ticket behind."""
    assert acquire(run, "es-1").code == 0
    outcome = acquire(run, "es-2", "--acquire-timeout=200ms", "--log-level=error")
    assert outcome.code == 1
    message = error_of(outcome)
    assert message.startswith("label es: lease not acquired within 0.2 s: position 1")
    assert "held by es-1 (127.0.0.1)" in message
    assert keys(store) == ["es/lease/es-1"]


def test_a_second_is_time_enough_for_a_lease(run: Run) -> None:
    """Quick services could not be started quickly."""
    assert acquire(run, "es-1", "--lease-timeout=1s").code == 0


def test_two_slots(run: Run) -> None:
    """Large clusters could only start one by one."""
    assert acquire(run, "es-1", "--slots=2").code == 0
    assert acquire(run, "es-2", "--slots=2").code == 0


def test_a_lease_can_be_given_back(run: Run, store: Store) -> None:
    """After a failed start all others would wait for the lease timeout."""
    token = acquire(run, "es-1", "--print-token").out.strip()
    argv = ("release-lease", "--label=es", "--service-id=es-1")
    other = run(*argv, "--token=999999")
    assert other.code == 1
    assert f"holds the lease with token {token}, not 999999" in error_of(other)
    assert keys(store) == ["es/lease/es-1"]
    released = run(*argv, f"--token={token}")
    assert (released.code, released.out) == (0, "")
    assert "label es: released the lease of es-1" in released.err
    assert keys(store) == []
    assert run(*argv).code == 0


def test_a_waiting_ticket_goes_only_by_force(run: Run, store: Store) -> None:
    """A node that still queues would lose its place by mistake."""
    ticket = Ticket("es-1", "h", "waiting", "n", 240)
    store.create(lease_prefix("es") + "es-1", ticket.to_json(), 60)
    argv = ("release-lease", "--label=es", "--service-id=es-1")
    assert "no lease to release of es-1" in run(*argv).err
    assert keys(store) == ["es/lease/es-1"]
    assert run(*argv, "--force", "--token=1").code == 0
    assert keys(store) == []


def test_the_service_id_is_the_host_name(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every unit file would have to name its node."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    assert run("acquire-lease", "--label=es").code == 0
    assert keys(store) == ["es/lease/node-7"]
    assert run("release-lease", "--label=es").code == 0
    assert keys(store) == []


def test_a_host_that_cannot_be_told_is_no_reason_to_wait(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node would not even queue while a name server is down."""

    def local_address(_: object) -> str:
        raise StoreUnavailable("cannot tell")

    monkeypatch.setattr(SqliteStore, "local_address", local_address)
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    assert acquire(run, "es-1").code == 0
    found = json.loads(run("status", "--format=json").out)
    assert found["leases"][0]["host"] == "node-7"


# status


def test_status_for_people_and_for_scripts(run: Run, store: Store) -> None:
    """Nobody could see why a cluster does not start."""
    register(store, "es-1", "10.0.0.1")
    assert acquire(run, "es-2").code == 0
    table = run("status")
    assert table.code == 0
    assert re.search(r"^es +es-1 +10\.0\.0\.1 +up ", table.out, re.MULTILINE)
    assert re.search(r"^es +held +es-2 ", table.out, re.MULTILINE)
    found = json.loads(run("status", "--label=es", "--format=json").out)
    assert found["services"][0]["host"] == "10.0.0.1"
    assert found["leases"][0]["state"] == "held"
    assert run("status", "--label=other").out.startswith("no service is registered")


# the store


@pytest.mark.parametrize("argv", [["hosts"], ["hosts", "--wait", "--timeout=1ms"]])
def test_the_store_is_closed_whatever_happens(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    """Leases of etcd that hold nothing would be left behind by each command."""
    closed, real = list[SqliteStore](), SqliteStore.close

    def close(store: SqliteStore) -> None:
        closed.append(store)
        real(store)

    monkeypatch.setattr(SqliteStore, "close", close)
    run(*argv, "--label=es")
    assert len(closed) == 1


@pytest.mark.promise(8)
@pytest.mark.parametrize("command", ["hosts", "status", "release-lease"])
def test_a_store_that_is_not_there_is_no_empty_answer(run: Run, command: str) -> None:
    """A node would take an outage for "I am the first", and found a second cluster."""
    url = f"etcd://127.0.0.1:{unused_port()}"
    outcome = run(command, "--label=es", f"--store={url}")
    assert outcome.code == 69
    http = url.replace("etcd", "http")
    assert (
        error_of(outcome) == f"the store cannot be reached: {http}: connection refused"
    )


def test_the_default_store_is_told_to_be_one(run: Run) -> None:
    """Nobody would know where 172.17.0.1:2379 comes from."""
    env = {
        "SERVICE_MONITOR_STORE": "",
        "ETCDCTL_ENDPOINTS": f"127.0.0.1:{unused_port()}",
    }
    outcome = run("hosts", "--label=es", env=env)
    assert outcome.code == 69
    assert error_of(outcome).endswith("(the default one: --store names another)")


def test_a_store_that_refuses_us(run: Run, serve: Serve) -> None:
    """A wrong password would look like an outage."""
    body = b'{"error": "permission denied", "code": 7, "message": "permission denied"}'
    server = serve(answering(status("403 Forbidden", body=body)))
    where = f"127.0.0.1:{server.port}"
    outcome = run("hosts", "--label=es", f"--store=etcd://{where}")
    assert outcome.code == 69
    assert error_of(outcome) == (
        f"the store refuses us: http://{where}: cannot read: permission denied: "
        "the user needs a role with readwrite on /service_monitor/"
    )

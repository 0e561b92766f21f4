"""What a label remembers of its nodes: real processes on real stores."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from integration.support.cli import clean_environment
from integration.support.commands import finish, is_up, started, wait_until
from integration.support.etcd import Etcd
from integration.support.etcd_log import ChangeLog, connecting
from integration.support.fixtures import serve
from integration.support.loopback import Serve, answering, status
from integration.support.stores import open_url
from service_monitor.net.calls import Bounds
from service_monitor.recipes.member import Member
from service_monitor.records import member_key, registration_key
from service_monitor.stores.base import Store
from service_monitor.stores.etcd.place import DEFAULT_PREFIX

__all__ = ["serve"]  # pytest finds it here

REST = 10.0
"""Seconds in which nothing is to be written."""
SHORT = ("--ttl=3s", "--interval=1s", "--timeout=1s")


@pytest.fixture(params=["etcd", "etcd2", "sqlite"])
def url(request: pytest.FixtureRequest, etcd: Etcd, tmp_path: Path) -> str:
    stores = {"etcd": etcd.url, "etcd2": etcd.url_v2}
    return stores.get(request.param, f"sqlite://{tmp_path}/store.db")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_url(url, Bounds(), {})
    yield opened
    opened.close()


class Node:
    """A `watch` beside a service that is up, and what the store has of it."""

    def __init__(self, url: str, store: Store, label: str, service: str) -> None:
        self.store = store
        self.registration = registration_key(label, "es-1")
        self.member_key = member_key(label, "es-1")
        ids = (f"--label={label}", "--service-id=es-1", "--host=10.0.0.1")
        self.argv = ("watch", *ids, f"--monitor-url={service}", *SHORT)
        self._url = url

    def watch(self) -> AbstractContextManager[subprocess.Popen[str]]:
        return started(self.argv, clean_environment(SERVICE_MONITOR_STORE=self._url))

    def wait_for_up(self) -> None:
        wait_until(lambda: is_up(self.store, self.registration))

    @property
    def member(self) -> Member:
        (record,) = self.store.list(self.member_key).records
        found = Member.from_json(record.value)
        assert found is not None
        return found


@pytest.fixture
def node(url: str, store: Store, label: str, serve: Serve) -> Node:
    return Node(url, store, label, serve(answering(status("200 OK"))).url)


def test_a_killed_node_is_remembered_and_a_stopped_one_says_so(node: Node) -> None:
    """After a power cut nobody would know whom to wait for, or since when."""
    with node.watch() as running:
        node.wait_for_up()
        running.send_signal(signal.SIGKILL)
        finish(running)
    wait_until(lambda: not node.store.list(node.registration).records)  # it lapsed
    assert (node.member.state, node.member.reason) == ("up", "200 OK")
    with node.watch() as running:
        node.wait_for_up()
        running.terminate()
        assert finish(running).code == 0
    assert node.store.list(node.registration).records == ()
    assert (node.member.state, node.member.reason) == ("stopped", "SIGTERM")
    assert [e.event for e in node.member.events] == ["up", "up", "stopped"]


def test_it_is_not_written_while_nothing_changes(node: Node) -> None:
    """A thousand nodes at rest would be a load on the store."""
    with node.watch():
        node.wait_for_up()
        before = node.store.list(node.member_key).records
        time.sleep(REST)
        assert node.store.list(node.member_key).records == before


def test_at_rest_etcd_writes_nothing_at_all(
    etcd: Etcd, label: str, serve: Serve
) -> None:
    """Its log would grow with each keepalive, on every member's disk."""

    def ask(path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = etcd.call("POST", path, body).json()
        return answer

    store = open_url(etcd.url, Bounds(), {})
    node = Node(etcd.url, store, label, serve(answering(status("200 OK"))).url)
    prefix = f"{DEFAULT_PREFIX}/{label.lower()}/"
    with ChangeLog([connecting(etcd.base_url)], ask, prefix) as log, node.watch():
        node.wait_for_up()
        wait_until(lambda: any(prefix + "hosts/" in c.key for c in log.changes()))
        time.sleep(0.5)
        before = log.changes()
        time.sleep(REST)
        assert log.changes() == before
        kinds = [change.key.removeprefix(prefix) for change in before]
        states = [json.loads(change.value)["state"] for change in before]
    store.close()
    # The member comes first, so that whoever sees the "up" can know whose it is.
    assert list(zip(kinds, states, strict=True))[-2:] == [
        ("members/es-1", "up"),
        ("hosts/es-1", "up"),
    ]

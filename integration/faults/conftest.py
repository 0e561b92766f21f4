"""Fixtures of the tests on three etcds: the cluster, commands on it, a service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.conftest import REQUIRED
from integration.faults.etcd_cluster import EtcdCluster, obstacle
from integration.faults.processes import Commands
from integration.support.etcd_log import ChangeLog
from integration.support.loopback import Loopback, answering, status
from service_monitor.stores.etcd.endpoints import DEFAULT_PREFIX


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

"""Fixtures of the simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.simulation.cluster import Cluster
from integration.simulation.verdicts import BOOT, WATCH, MakeCluster
from integration.support.etcd import Etcd


@pytest.fixture
def make_cluster(etcd: Etcd, label: str, tmp_path: Path) -> Iterator[MakeCluster]:
    """Give a function that makes clusters, which end with the test."""
    with ExitStack() as stack:

        def make(count: int, **settings: Any) -> Cluster:
            settings = {
                "store": etcd.url,
                "boot": BOOT,
                "watch_options": WATCH,
            } | settings
            cluster = Cluster(count, label=label, directory=tmp_path, **settings)
            return stack.enter_context(cluster)

        yield make

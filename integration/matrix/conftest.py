"""Fixtures of the fault matrix: a store, commands on it, and the chance of a round."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import NEEDS_ROOT
from integration.faults.processes import Commands
from integration.support.etcd import Etcd
from integration.support.fixtures import certificates, serve, strangers

__all__ = ["certificates", "serve", "strangers"]  # pytest finds them here


@pytest.fixture(autouse=True)
def chance(round: int) -> random.Random:
    """Draw the moments of this round."""
    return random.Random(round)


@pytest.fixture
def run(etcd: Etcd, label: str) -> Iterator[Commands]:
    """Start commands on an etcd v3."""
    with Commands(etcd.url, label) as run:
        yield run


@pytest.fixture(scope="module")
def root() -> None:
    """Ask for what namespaces and mounts need."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip(f"{NEEDS_ROOT} for namespaces and mounts, and unshare")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def sqlite(path: Path, label: str) -> Iterator[Commands]:
    """Start commands on an SQLite file."""
    with Commands(f"sqlite://{path}", label) as run:
        yield run

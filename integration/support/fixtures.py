"""Fixtures that both suites use, each through its conftest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.support.certificates import Certificates
from integration.support.loopback import Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that serves each connection by the talk it is given."""
    made = Serve()
    yield made
    for server in made.started:
        server.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give a CA and what it signed."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give another CA that has nothing to do with the first."""
    return Certificates(tmp_path_factory.mktemp("strangers"))

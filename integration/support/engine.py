"""The Docker engine: whether it answers, networks of our own, and who cleans up."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from integration import images
from integration.support.interrupts import uninterrupted

if TYPE_CHECKING:
    from testcontainers.core.network import Network


LABELS = {"service_monitor.test": "1"}


@functools.cache
def docker_available() -> bool:
    """Tell whether there is a `docker` whose engine answers within a minute.

    Without an engine `docker` says so at once; a busy machine may need seconds.
    """
    try:
        command = ("docker", "version", "--format", "{{.Server.Version}}")
        return not subprocess.run(command, capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a Docker network of one's own for as long as the block lasts."""
    settle_ryuk()
    from testcontainers.core.network import Network

    with contextlib.ExitStack() as stack:
        with uninterrupted():
            made = Network(docker_network_kw={"labels": LABELS})
            stack.enter_context(made)
        yield made


@functools.cache
def settle_ryuk() -> None:
    """Use testcontainers' cleaner if its image is at hand; else do without it.

    It cleans up after a test process that was killed by SIGKILL. Must come before the
    first use of testcontainers, which would otherwise wait for its image.
    """
    if "TESTCONTAINERS_RYUK_DISABLED" not in os.environ:
        from testcontainers.core.config import testcontainers_config as config

        try:
            images.ensure(config.ryuk_image)
        except images.ImageError:
            config.ryuk_disabled = True

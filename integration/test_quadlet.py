"""The examples for Podman Quadlet, as Debian's podman makes units of them."""

from __future__ import annotations

import re

import pytest

from integration import images
from integration.conftest import Containers
from integration.images import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.systemd]
GENERATE = """
set -eu
mkdir /units /out
cp /clone/examples/quadlet/*.container /clone/examples/quadlet/*.volume /units
export QUADLET_UNIT_DIRS=/units
/usr/lib/systemd/system-generators/podman-system-generator /out /out /out
systemd-analyze verify /out/*.service
cat /out/es.service
"""


@pytest.fixture(scope="module")
def unit() -> str:
    """Give the service that the generator makes; systemd finds no fault with it."""
    containers = Containers(images.build_machine("quadlet"))
    examples = {str(ROOT / "examples"): {"bind": "/clone/examples", "mode": "ro"}}
    try:
        result = containers.run("sh", "-c", GENERATE, volumes=examples)
    finally:
        containers.remove_all()
    assert (result.code, result.stderr) == (0, ""), result
    return result.stdout


def test_the_generator_takes_all_of_it(unit: str) -> None:
    """`systemctl start es` would say that there is no such unit."""
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command.startswith("/usr/bin/podman run --name es ")
    assert command.endswith(" -- start-elasticsearch")
    assert "--sdnotify=container" in command  # READY=1 is ours to send
    assert "Requires=es-volume.service" in unit


def test_podman_stops_no_sooner_than_run(unit: str) -> None:
    """SIGKILL would come before `run` has deregistered and stopped the service."""
    own = duration(r"--stop-timeout=(\d+)s", unit)
    podman = duration(r"--stop-timeout (\d+)", unit)
    systemd = duration(r"^TimeoutStopSec=(\d+)s", unit)
    assert own < podman < systemd


def duration(pattern: str, text: str) -> int:
    (found,) = set(re.findall(pattern, text, re.MULTILINE))
    return int(found)

"""What a port that Docker published says of the service behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.conftest import Containers
from integration.faults.processes import wait_for
from service_monitor.net.calls import Bounds
from service_monitor.net.here import look
from service_monitor.net.meaning import why_ambiguous
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Result, Target, new_probe

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300, func_only=True)]
INSIDE = 9000
# Nobody listens until it is told to.
SERVER = f"""
import signal, socket, time
signal.sigwait({{signal.SIGUSR1}})
server = socket.create_server(("", {INSIDE}))
time.sleep(600)
"""


@pytest.fixture
def published(containers: Containers) -> Container:
    """Give a container with a published port that nobody listens on yet."""
    return containers.start(
        *("-c", "import signal; signal.pthread_sigmask(0, {10})" + SERVER),
        entrypoint="python",
        ports={f"{INSIDE}/tcp": ("127.0.0.1", None)},
    )


def ask(container: Container) -> Result:
    container.reload()
    (place,) = container.ports[f"{INSIDE}/tcp"]
    return new_probe(
        Target(read_monitored_url(f"tcp://127.0.0.1:{place['HostPort']}"), 2.0),
        Bounds(),
    )()


def test_a_published_port_is_down_until_somebody_listens_inside(
    published: Container,
) -> None:
    """docker-proxy accepts at once: the turn would pass on before the node has begun to
    boot."""
    found = [ask(published) for _ in range(5)]
    assert not any(result.ok for result in found), found
    published.kill(signal="SIGUSR1")
    wait_for("the service", lambda: ask(published).ok)
    assert ask(published) == (True, "accepts connections")


def test_the_engines_bridge_is_another_one_on_each_machine(
    published: Container,
) -> None:
    """Three nodes would publish the bridge, and be told to join themselves."""
    published.reload()
    (network,) = published.attrs["NetworkSettings"]["Networks"].values()
    found = look()
    assert why_ambiguous(network["Gateway"], found)
    assert network["Gateway"] in found.bridges
    assert why_ambiguous(network["IPAddress"], found) is None

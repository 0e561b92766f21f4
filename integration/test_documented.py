"""The `docker run` lines of the documents, pasted as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.images import ETCD_IMAGE, PYTHON_IMAGE, ROOT, ensure
from integration.support.etcd import start_etcd
from integration.support.recipes import pasted

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("image")]

# Goes before docker on PATH: the documents' names become this test's own.
SHIM = """#!{python}
import os, re, sys
mine, label, given = {prefix!r}, {label!r}, sys.argv[1:]
args = []
for before, word in zip([""] + given, given):
    if before == "--name" and not any("container:" in w for w in given):
        args += [mine + word, "--network-alias", word]
    elif before == "--name" or before == "--network" and ":" not in word:
        args.append(mine + word)
    elif given[0] in ("network", "stop") and before in ("create", "stop"):
        args.append(mine + word)
    else:
        args.append(re.sub("^container:", "container:" + mine, word))
if given[0] == "run":
    args[1:1] = ["--label", label]
    if "--network" not in given:
        args[1:1] = ["--network", mine + "default"]
if given[:2] == ["network", "create"]:
    args[2:2] = ["--label", label]
os.execv({docker!r}, ["docker", *args])
"""


class Shell:
    """Runs lines as a user's shell would, with names of its own for what they make."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"sm{os.getpid()}-"
        self.label = f"service_monitor.documented={self.prefix}"
        shim = directory / "docker"
        docker = self._output("sh", "-c", "command -v docker").strip()
        shim.write_text(
            SHIM.format(
                python=sys.executable,
                prefix=self.prefix,
                label=self.label,
                docker=docker,
            )
        )
        shim.chmod(0o755)
        self._path = f"{directory}:{os.environ['PATH']}"

    def __call__(self, script: str, timeout: float = 90) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=os.environ | {"PATH": self._path},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def clean(self) -> None:
        """Remove all that the lines made, by its label."""
        mine = ("--filter", f"label={self.label}", "-q")
        for listing, removal in (
            (("ps", "-a"), ("rm", "-f", "-v")),
            (("network", "ls"), ("network", "rm")),
        ):
            if found := self._output("docker", *listing, *mine).split():
                self._output("docker", *removal, *found)

    def _output(self, *argv: str) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.clean()


def test_the_docker_recipe(shell: Shell) -> None:
    """A newcomer would paste a line that does not work, and go away."""
    for tag in ETCD_IMAGE, PYTHON_IMAGE:
        ensure(tag)
    network_lines = "\n".join(pasted("docker.md", "Docker")).partition("docker network")
    shell("".join(network_lines[1:]))
    said = shell("\n".join(pasted("docker.md", "One container for a node")))
    assert re.search(r"^\d+\.\d+\.\d+\.\d+$", said, re.MULTILINE), said
    lines = pasted("docker.md", "A sidecar")
    said = shell("\n".join(lines))
    # Deregistered by `docker stop`, and remembered.
    assert not re.search(r"^es +es-2 +\S+ +(up|down)", said, re.M), said
    ask = [line for line in lines if line][-1]
    assert ask.endswith(" status")
    deadline = time.monotonic() + 30
    while not re.search(r"^es +es-1 +\d+\.\d+\.\d+\.\d+ +(up|down)", said, re.M):
        assert time.monotonic() < deadline, said  # the watch in the background is slow
        said = shell(ask)


def test_the_docker_lines_of_the_readme(shell: Shell) -> None:
    """The first lines that anybody tries would fail."""
    text = (ROOT / "README.md").read_text()
    (lines,) = re.findall("^```sh\n(docker run.*?)^```", text, re.DOTALL | re.M)
    shell("docker network create default")
    gateway = shell(
        "docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' "
        f"{shell.prefix}default"
    ).strip()
    server = start_etcd(prefer="process")
    listen = f"http://{gateway}:2379,{server.base_url}"
    server.args.append(f"--listen-client-urls={listen}")
    with server:
        shell(
            f"docker run -d --name es-1 {ensure(PYTHON_IMAGE)} "
            "python -m http.server 9200"
        )
        shell(lines)
        said = shell(
            "docker run --rm service_monitor hosts --label=es --wait --port=9300"
        )
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+:9300\n", said)

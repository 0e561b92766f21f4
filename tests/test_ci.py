"""CI: containers are required wherever an engine is, or can be started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from integration.images import ETCD_IMAGE, PYTHON_IMAGE

CI = Path(__file__).resolve().parent.parent / ".ci"
SAY = 'echo "tests: REQUIRE_DOCKER=${REQUIRE_DOCKER:-}"'
NEVER = "exit 1"
ONCE_STARTED = '[ -e "$(dirname "$0")/started" ]'
DOCKERD = """
touch "$(dirname "$0")/started"
trap 'rm "$(dirname "$0")/started"; exit 0' TERM
while :; do sleep 0.1; done
"""

Engine = Callable[[Mapping[str, str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Give a function that runs a command under `.ci/engine`, on stand-in programs."""

    def run(programs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        for name, body in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
            (tmp_path / name).chmod(0o755)
        return subprocess.run(
            (CI / "engine", "bash", "-c", f"{SAY}; exit 3"),
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_an_engine_that_answers_is_used(engine: Engine) -> None:
    """Else a skipped container test would pass for a green one."""
    done = engine({"docker": "exit 0", "dockerd": "exit 9"})
    assert (done.returncode, done.stdout) == (3, "tests: REQUIRE_DOCKER=1\n")
    assert done.stderr == ""


def test_an_engine_is_started_and_ended(engine: Engine, tmp_path: Path) -> None:
    """Else CI on a new machine would test no container, or leave an engine behind."""
    done = engine({"docker": ONCE_STARTED, "dockerd": DOCKERD, "id": "echo 0"})
    assert (done.returncode, done.stdout) == (3, "tests: REQUIRE_DOCKER=1\n")
    assert "started dockerd" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("programs", "why"),
    [
        ({"id": "echo 1000"}, "only root can start one"),
        ({"id": "echo 0", "dockerd": "echo no overlay; exit 1"}, "does not start"),
    ],
)
def test_a_run_without_containers_says_so_last(
    engine: Engine, programs: Mapping[str, str], why: str
) -> None:
    """Else a run that tested no container would look like one that did."""
    done = engine({"docker": NEVER, **programs})
    assert (done.returncode, done.stdout) == (3, "tests: REQUIRE_DOCKER=\n")
    assert why in done.stderr.splitlines()[-1]
    assert "THIS RAN WITHOUT CONTAINERS" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("docker", "code", "said"),
    [
        ("exit 0", 0, ""),
        ('[ "$1" = version ] || { echo no registry; exit 1; }', 1, "no registry"),
        ("echo no engine; exit 1", 1, "no engine"),
    ],
    ids=["there", "nowhere", "no engine"],
)
def test_an_image_is_there_or_why_not_is_said(
    tmp_path: Path, docker: str, code: int, said: str
) -> None:
    """Else all container tests would fail, each with a riddle of its own."""
    (tmp_path / "docker").write_text(f"#!/bin/bash\n{docker}\n")
    (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        (CI / "images", "some/image:1"),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


@pytest.mark.parametrize("tag", [PYTHON_IMAGE, ETCD_IMAGE])
def test_each_image_of_the_tests_has_a_stand_in(tag: str) -> None:
    """Else a machine without a registry could run no container."""
    assert f'"{tag}": StandIn(' in (CI / "images").read_text()


def test_ci_runs_the_readme_s_test_command() -> None:
    """Else CI would be green while the command that users paste is not."""
    readme = (CI.parent / "README.md").read_text()
    commands = [block.split("```")[0] for block in readme.split("```sh\n")[1:3]]
    assert commands[1].strip() in (CI / "run").read_text()

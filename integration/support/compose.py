"""Run the examples' compose files, as their readers do, and leave nothing behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from integration import images
from integration.support.engine import LABELS
from integration.support.interrupts import uninterrupted
from integration.support.recipes import pasted

ROOT = images.ROOT
TIMEOUT = 120.0  # seconds for one command, but for `build`
LINES_TIMEOUT = 480.0  # seconds for all lines of a recipe


class ComposeError(RuntimeError):
    """A command of docker-compose failed, or what was waited for did not come."""


@functools.cache
def program() -> tuple[str, ...] | None:
    """Return how to call docker-compose here; as root install Debian's if need be."""
    for _ in range(2):
        for words in (("docker", "compose"), ("docker-compose",)):
            with contextlib.suppress(OSError):
                command = (*words, "version")
                if not subprocess.run(command, capture_output=True).returncode:
                    return words
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            break
        for command in (("update",), ("install", "-y", "docker-compose")):
            subprocess.run(("apt-get", *command), capture_output=True)
    return None


class Project:
    """A compose file under a name of its own; `changes` are merged over it.

    All that it starts carries the label of our tests.
    """

    def __init__(self, file: Path, changes: Mapping[str, Any] | None = None) -> None:
        self.file = file
        self.name = f"service-monitor-test-{uuid.uuid4().hex[:8]}"
        self._own = yaml.safe_load(file.read_text())
        self._changes = dict(changes or {})

    def __enter__(self) -> Project:
        labels = {"labels": LABELS}
        override: dict[str, Any] = {"networks": {"default": labels}}
        if version := self._own.get("version"):
            override["version"] = version
        override["services"] = {
            name: {**labels, **self._changes.get(name, {})}
            for name in self._own["services"]
        }
        if volumes := self._own.get("volumes"):
            override["volumes"] = dict.fromkeys(volumes, labels)
        with uninterrupted():
            self._directory = tempfile.TemporaryDirectory(prefix="service-monitor-")
            over = Path(self._directory.name, "override.json")
        over.write_text(json.dumps(override))  # which YAML can read
        words = program()
        assert words
        self._command = (
            *(*words, "-p", self.name, "-f", str(self.file), "-f", str(over)),
            *("--project-directory", str(self.file.parent)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            try:
                self.run("down", "-v", "--remove-orphans", "-t", "0")
            finally:
                self._directory.cleanup()

    def run(self, *command: str, timeout: float = TIMEOUT) -> str:
        """Run one command of docker-compose and return its stdout."""
        done = self.attempt(*command, timeout=timeout)
        if done.returncode:
            said = "\n".join(done.stderr.splitlines()[-15:])
            line = shlex.join((*(program() or ()), *command))
            raise ComposeError(f"`{line}` failed:\n{said}")
        return done.stdout

    def attempt(
        self, *command: str, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of docker-compose, however it ends."""
        return subprocess.run(
            (*self._command, *command),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, who then clean up in order
        )

    def ask(self, service: str, *command: str) -> str | None:
        """Run a command inside a service's container; None unless it succeeds."""
        done = self.attempt("exec", "-T", service, *command)
        return None if done.returncode else done.stdout

    def containers(self, *services: str) -> list[str]:
        """Return the ids of the containers, stopped ones included."""
        return self.run("ps", "-a", "-q", *services).split()

    def kill(self, *services: str) -> None:
        """Kill what runs of these services, or of all, at once and by SIGKILL."""
        command = ("docker", "ps", "-q", "--no-trunc")
        running = subprocess.run(command, check=True, capture_output=True, text=True)
        ids = set(self.containers(*services)) & set(running.stdout.split())
        subprocess.run(("docker", "kill", *ids), check=True, capture_output=True)

    def logs(self, *services: str) -> str:
        """Return all that these services have logged."""
        return self.run("logs", "--no-color", *services)

    def until(self, condition: Callable[[], object], what: str, timeout: float) -> None:
        """Wait for a condition; raise with the end of the log when it stays false."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                tail = "\n".join(self.logs().splitlines()[-40:])
                message = f"not within {timeout:g} s: {what}; the log ends:\n{tail}"
                raise ComposeError(message)
            time.sleep(0.5)


@contextlib.contextmanager
def started(
    file: Path, changes: Mapping[str, Any] | None = None, *up: str
) -> Iterator[Project]:
    """Start an example from cold; everything is removed at the end."""
    with Project(file, changes) as project:
        project.run("up", "-d", *up)
        yield project


def build(file: Path) -> None:
    """Build the images of an example on the project's, outside of any test's time."""
    images.ensure(images.ETCD_IMAGE)
    images.build_project()
    with Project(file) as project:
        project.run("build", timeout=images.STEP_TIMEOUT)


def paste(page: str, heading: str) -> str:
    """Run the lines under a heading of a recipe, as a user's shell would.

    In a project of our own, which is removed at the end; returns the stdout.
    """
    lines = "\n".join(pasted(page, heading))
    # A test has no terminal.
    for words, instead in (("exec ", "exec -T "), ("run --rm ", "run --rm -T ")):
        lines = lines.replace(f"docker-compose {words}", f"docker-compose {instead}")
    called = program() or ()
    if len(called) > 1:
        lines = f'docker-compose() {{ {shlex.join(called)} "$@"; }}\n{lines}'
    directory = ROOT / re.findall("^cd (.*)", lines, re.M)[0]
    name = f"service-monitor-test-{uuid.uuid4().hex[:8]}"
    how: dict[str, Any] = {
        "env": os.environ | {"COMPOSE_PROJECT_NAME": name},
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
        "start_new_session": True,
    }
    try:
        command = ("bash", "-euxo", "pipefail", "-c", lines)
        done = subprocess.run(command, cwd=ROOT, timeout=LINES_TIMEOUT, **how)
    finally:
        with uninterrupted():
            for file in directory.glob("*.yml"):
                away = ("down", "-v", "--remove-orphans", "-t", "0")
                subprocess.run((*called, "-f", file, *away), cwd=directory, **how)
    if done.returncode:
        raise ComposeError(f"the lines of {page} failed:\n{done.stdout}{done.stderr}")
    return str(done.stdout)

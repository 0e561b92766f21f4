"""The images of the integration tests: the official ones, and ours built on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PYTHON_IMAGE = "python:3.13-slim"
ETCD_IMAGE = "quay.io/coreos/etcd:v3.5.16"
PROJECT_IMAGE = "service_monitor"
STEP_TIMEOUT = 600.0  # seconds for one build
ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".ci/images"


class ImageError(RuntimeError):
    """An image is missing and could not be made; says which command failed."""


def ensure(tag: str) -> str:
    """Return `tag` once an image of that name is on this Docker engine.

    One that is not there is pulled, else built as a stand-in, by `.ci/images`. Blocks
    for as long as that takes, by whichever process. Raises ImageError.
    """
    if not present(tag):
        _run(sys.executable, str(SCRIPT), tag)
    return tag


def present(tag: str) -> bool:
    """Tell whether the engine has this image."""
    command = ("docker", "image", "inspect", tag)
    return subprocess.run(command, capture_output=True).returncode == 0


def build_project() -> str:
    """Build the project's own image from this checkout and return its tag.

    The engine keeps the layers, so that only the first build takes time.
    """
    ensure(PYTHON_IMAGE)
    return _build(PROJECT_IMAGE, str(ROOT))


def build_machine(stage: str) -> str:
    """Build an image with systemd, a stage of systemd/Dockerfile; return its tag."""
    build_project()
    where = str(ROOT / "integration/systemd")
    return _build(f"{PROJECT_IMAGE}-{stage}", "--target", stage, where)


def _build(tag: str, *options: str) -> str:
    with _one_at_a_time():
        _run("docker", "build", "--force-rm", "--tag", tag, *options)
    return tag


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lock out other processes: on the directory itself, so no lock file stays."""
    directory = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _run(*command: str) -> None:
    """Run a command; whatever ends the wait for it ends it too. Raises ImageError."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        try:
            said, _ = process.communicate(timeout=3 * STEP_TIMEOUT)
        except BaseException:
            process.terminate()  # which has it clean up
            raise
    print(said, file=sys.stderr)
    if process.returncode:
        tail = "\n".join(said.splitlines()[-15:])
        raise ImageError(f"`{shlex.join(command)}` failed:\n{tail}")

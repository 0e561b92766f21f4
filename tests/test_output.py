"""What a command prints where printing goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.support.commands import HANG, environment, finish, register, started
from service_monitor.stores.base import Store


def test_a_reader_that_goes_away(path: Path) -> None:
    """`status | head` would end in a traceback."""
    for argv in ["status"], ["status", "--help"], ["--version"]:
        reading, writing = os.pipe()
        os.close(reading)
        with started(argv, environment(path), stdout=writing) as running:
            os.close(writing)
            _, err = running.communicate(timeout=HANG)
        assert (running.returncode, err) == (74, "")


@pytest.mark.parametrize(
    "argv",
    [["hosts", "--label=es"], ["status"], ["status", "--help"], ["--version"]],
)
def test_a_full_disk_is_not_an_answer(path: Path, argv: list[str]) -> None:
    """A script would take an empty file for "no hosts"."""
    env = environment(path)
    with open("/dev/full", "w") as full, started(argv, env, stdout=full) as running:
        _, err = running.communicate(timeout=HANG)
    assert running.returncode == 74
    assert err == "service-monitor: cannot go on: [Errno 28] No space left on device\n"


def test_a_token_that_cannot_be_printed_is_given_back(store: Store, path: Path) -> None:
    """The start script stops, and all others would wait for the lease's timeout."""
    argv = ["acquire-lease", "--label=es", "--service-id=es-1", "--print-token"]
    env = environment(path)
    with open("/dev/full", "w") as full, started(argv, env, stdout=full) as running:
        running.communicate(timeout=HANG)
    assert running.returncode == 74
    assert store.list("es/lease/").records == ()


def test_a_full_stderr_does_not_change_the_exit_code(path: Path) -> None:
    """A usage error would pass for "not acquired in time"."""
    with open("/dev/full", "w") as full:
        argv = ["acquire-lease", "--label=/"]
        with started(argv, environment(path), stderr=full) as running:
            running.communicate(timeout=HANG)
    assert running.returncode == 2


def test_a_closed_stdout_is_not_an_answer(path: Path) -> None:
    """Data would get lost without a word."""
    command = f"exec {sys.executable} -m service_monitor hosts --label=es >&-"
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment(path),
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 74
    assert done.stderr == "service-monitor: cannot go on: stdout is closed\n"


def test_a_closed_stderr_is_no_reason_to_fail(path: Path) -> None:
    """A daemon without stderr would not run at all."""
    command = f"exec {sys.executable} -m service_monitor acquire-lease --label=es"
    done = subprocess.run(
        ["sh", "-c", f"{command} --service-id=es-1 --print-token 2>&-"],
        env=environment(path),
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0
    assert int(done.stdout) > 0


def test_any_text_can_be_printed_anywhere(store: Store, path: Path) -> None:
    """`status` would end in a traceback where the locale is plain C."""
    register(store, "es-1", "10.0.0.1", reason="käse€")
    env = environment(path, PYTHONIOENCODING="latin-1")
    with started(["status"], env, encoding="latin-1") as running:
        outcome = finish(running)
    assert outcome.code == 0
    assert r"käse\u20ac" in outcome.out

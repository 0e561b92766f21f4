"""Real limits of processes and files: named, lived through, and never an outage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from integration.conftest import NEEDS_ROOT
from integration.faults.processes import Commands
from integration.support.etcd import Etcd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason=NEEDS_ROOT)

SOON = 30.0
OWN = 3
"""Threads that each command has before it asks the store anything."""
PROGRAM = """
import importlib, os, resource, sys
# What another user may not read is read before.
for name in (
    "cli.app", "cli.crash", "net.http", "node.child", "node.probe", "node.runner",
    "node.watcher", "recipes.acquire", "recipes.contender", "recipes.publisher",
    "recipes.status", "stores.etcd.v3",
):
    importlib.import_module(f"service_monitor.{name}")
import requests, urllib3.util.ssl_, encodings.idna, traceback
os.setgroups([])
os.setgid(%(user)d)
os.setuid(%(user)d)
resource.setrlimit(resource.RLIMIT_%(kind)s, (%(limit)d, 100))
from service_monitor.__main__ import main
main()
"""


def limited(kind: str, limit: int, user: int) -> tuple[str, ...]:
    """Give how to start a command as a user that may have no more of something."""
    given = {"kind": kind, "limit": limit, "user": user}
    return sys.executable, "-c", PROGRAM % given


def allow(pid: int, user: int, kind: str, number: int) -> None:
    """Let it have so many, by a process of its own user as the kernel wants it."""
    command = ("prlimit", f"--pid={pid}", f"--{kind}={number}:100")
    subprocess.run(command, user=user, group=user, extra_groups=(), check=True)


@pytest.fixture
def user(request: pytest.FixtureRequest) -> int:
    """Give a user id that nobody else has, since its processes are counted."""
    return 200_000 + os.getpid() % 50_000


@pytest.fixture
def run(etcd: Etcd, label: str) -> Iterator[Commands]:
    with Commands(etcd.url, label) as commands:
        yield commands


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("command", ["hosts", "status", "release-lease"])
def test_one_look_without_a_thread_is_exit_71(
    run: Commands, user: int, limit: int, command: str
) -> None:
    """A container at its limit would be told that the store is down."""
    run.cli = limited("NPROC", limit, user)
    ended = run(command)
    assert ended.wait(SOON) == 71, ended
    assert ended.stdout == ""
    said = "service-monitor: this machine lacks threads or processes: raise TasksMax="
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def test_who_queues_goes_on_once_there_is_a_thread(run: Commands, user: int) -> None:
    """A node would fail its start because others forked for a moment."""
    run.cli = limited("NPROC", OWN, user)
    waiter = run("acquire-lease", "--service-id=a", "--host=h", "--acquire-timeout=1m")
    waiter.wait_said(
        "no outage of the store, trying again: this machine lacks thr", SOON
    )
    allow(waiter.pid, user, "nproc", 100)
    assert waiter.wait(SOON) == 0, waiter
    assert "does not serve us" not in waiter.stderr


def test_who_never_gets_a_thread_is_told_so(run: Commands, user: int) -> None:
    """The operator would look for a holder, or at the store."""
    run.cli = limited("NPROC", OWN, user)
    waiter = run("acquire-lease", "--service-id=a", "--host=h", "--acquire-timeout=2s")
    assert waiter.wait(SOON) == 1, waiter
    last = waiter.stderr.splitlines()[-1]
    assert "not acquired within 2 s" in last
    assert "; this machine lacks threads or processes: raise TasksMax=" in last


def test_a_watch_lives_through_it(run: Commands, user: int) -> None:
    """A service would go unwatched, and unlisted, until somebody looks."""
    run.cli = limited("NPROC", OWN, user)
    port = run.store.partition("//")[2].partition(":")[2].partition("/")[0]
    url = f"--monitor-url=tcp://127.0.0.1:{port}"
    watch = run("watch", "--service-id=a", "--host=h", url, "--interval=1s")
    watch.wait_said("no outage of the store, still probing: this machine lacks", SOON)
    watch.wait_said("a is down: this machine lacks threads or processes", SOON)
    allow(watch.pid, user, "nproc", 100)
    watch.wait_said("this machine has again what it lacked", SOON)
    watch.wait_said("a is up: ", SOON)
    watch.term()
    assert watch.wait(SOON) == 0, watch
    assert "deregistered a" in watch.stderr


def test_a_watch_without_a_file_left_lives_through_it(run: Commands, user: int) -> None:
    """It would call its service dead and the store away, for a limit of its own."""
    run.cli = limited("NOFILE", 100, user)
    port = run.store.partition("//")[2].partition(":")[2].partition("/")[0]
    url = f"--monitor-url=tcp://127.0.0.1:{port}"
    watch = run("watch", "--service-id=a", "--host=h", url, "--interval=1s")
    watch.wait_said("a is up: ", SOON)
    allow(watch.pid, user, "nofile", 1)
    watch.wait_said("a is down: this machine lacks open files: raise LimitNOFILE", SOON)
    allow(watch.pid, user, "nofile", 100)
    watch.wait_said("a is up: ", SOON)
    watch.term()
    assert watch.wait(SOON) == 0, watch

"""`run`: a command that is started at its turn, watched, and told whom to join."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.support.cli import CLI
from integration.support.commands import (
    Run,
    acquire,
    by_python,
    ended,
    environment,
    error_of,
    finish,
    is_up,
    keys,
    passing,
    register,
    registration,
    started,
    wait_until,
)
from integration.support.loopback import Serve, hanging
from integration.support.run_script import HELD, SHOW, UP, RunScript
from service_monitor.recipes.lease import HOLDER_TTL
from service_monitor.records import Registration, hosts_prefix
from service_monitor.stores.base import Store
from service_monitor.timing import now


def test_the_first_is_told_so_and_publishes(store: Store, sound: RunScript) -> None:
    """Nobody would found the cluster, or everybody."""
    script = f'{SHOW} echo "token $SERVICE_MONITOR_LEASE_TOKEN" >$SEEN; exec sleep 60'
    with sound(script) as running:
        wait_until(lambda: is_up(store, UP))
        wait_until(lambda: HELD not in keys(store))
        running.terminate()
        outcome = finish(running)
    assert outcome.code == 128 + signal.SIGTERM
    assert "\n1 \n" in outcome.err
    assert int(sound.said().split()[1]) > 0
    assert passing(store) == []


def test_the_next_is_told_whom_to_join(store: Store, sound: RunScript) -> None:
    """It would found a second cluster; or wait for its own earlier life."""
    register(store, "es-0", "10.0.0.9")
    register(store, "es-1", "10.0.0.1")
    with sound(SHOW) as running:
        outcome = finish(running)
    assert outcome.code == 0
    assert "\n0 10.0.0.9\n" in outcome.err


def test_a_registered_port_is_told(store: Store, sound: RunScript) -> None:
    """A node would join the other one of its own host at the wrong port."""
    value = Registration("es-0", "10.0.0.1", "up", "", "n", port=9301).to_json()
    store.create(hosts_prefix("es") + "es-0", value, 60)
    port = "--advertise-port=9302"
    with sound(SHOW + "exec sleep 60", port) as running:
        wait_until(lambda: is_up(store, UP))
        found = registration(store, UP)
        running.terminate()
        outcome = finish(running)
    assert "\n0 10.0.0.1:9301\n" in outcome.err
    assert found is not None
    assert (found.host, found.port) == ("10.0.0.1", 9302)


def test_it_waits_for_its_turn(run: Run, store: Store, sound: RunScript) -> None:
    """The command would start beside the holder."""
    assert acquire(run, "es-0").code == 0
    with sound("echo started >$SEEN") as running:
        wait_until(lambda: HELD in keys(store))
        time.sleep(0.3)
        assert sound.said() == ""
        assert run("release-lease", "--label=es", "--service-id=es-0").code == 0
        assert finish(running).code == 0
    assert sound.said() == "started\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_its_exit_code_is_the_commands(
    store: Store, booting: RunScript, script: str, code: int
) -> None:
    """The service manager would take a crash for success; the next node would wait."""
    begun = now()
    with booting(script) as running:
        assert finish(running).code == code
    assert now() - begun < HOLDER_TTL  # the lease did not lapse: it was given back
    assert keys(store) == []


def test_its_end_is_seen_where_sigchld_is_ignored(booting: RunScript) -> None:
    """Some parents pass that on: a dead command would hold the lease to its end."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    argv = [*booting.argv(), "--", "sh", "-c", "exit 3"]
    cli = (*by_python(code), *CLI)
    assert ended(argv, environment(booting.path), cli=cli).code == 3


def test_systemd_hears_us_and_not_the_command(path: Path, sound: RunScript) -> None:
    """A service that says READY itself would be ready before it is up."""
    with sound(
        "echo ${NOTIFY_SOCKET-none} >$SEEN", env={"NOTIFY_SOCKET": str(path) + "-x"}
    ) as running:
        finish(running)
    assert sound.said() == "none\n"


def test_no_turn_is_exit_1(run: Run, store: Store, sound: RunScript) -> None:
    """The node would start beside the holder."""
    assert acquire(run, "es-0").code == 0
    with sound("echo started >$SEEN", "--acquire-timeout=300ms") as running:
        outcome = finish(running)
    assert outcome.code == 1
    assert "lease not acquired within 0.3 s" in outcome.err
    assert sound.said() == ""
    assert keys(store) == ["es/lease/es-0"]


def test_it_may_start_without_the_lease_but_never_as_the_first(
    run: Run, store: Store, sound: RunScript
) -> None:
    """Two nodes would found a cluster each."""
    assert acquire(run, "es-0").code == 0
    options = ("--acquire-timeout=300ms", "--on-lease-timeout=start")
    script = f"{SHOW} echo ${{SERVICE_MONITOR_LEASE_TOKEN-none}} >$SEEN"
    with sound(script, *options) as running:
        outcome = finish(running)
    assert outcome.code == 0
    assert "starting without the lease: label es: lease not acquired" in outcome.err
    assert "\n0 \n" in outcome.err
    assert sound.said() == "none\n"
    assert keys(store) == ["es/lease/es-0"]


def test_without_a_store_whom_to_join_is_not_known(
    serve: Serve, sound: RunScript
) -> None:
    """An empty list would tell the node to found a cluster."""
    store = f"--store=etcd://127.0.0.1:{serve(hanging).port}"
    options = (store, "--acquire-timeout=300ms", "--on-lease-timeout=start")
    with sound(f"{SHOW} echo started >$SEEN", *options) as running:
        sound.wait_for("started")
        running.terminate()
        outcome = finish(running)
    assert "\n0 unset\n" in outcome.err
    assert "whom to join is not known, starting anyway" in outcome.err


def test_a_missing_command_is_a_usage_error(run: Run, booting: RunScript) -> None:
    """It would be taken for a COMMAND that cannot be executed."""
    outcome = run(*booting.argv(), "--")
    assert outcome.code == 2
    assert error_of(outcome) == "COMMAND... is missing: write it after --"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("/nowhere/x", 127, "'/nowhere/x': there is no such file"),
        ("no-such-program", 127, "'no-such-program': there is no such program in PATH"),
        ("", 127, "'': the name is empty"),
        ("/etc/passwd", 126, "'/etc/passwd': it is not executable for this user"),
        ("/etc", 126, "'/etc': it is a directory"),
        ("BROKEN", 127, "its first line ends in CR, so it asks for '/bin/sh\\r'"),
    ],
)
def test_what_cannot_be_started_is_refused_before_it_queues(
    run: Run, tmp_path: Path, booting: RunScript, command: str, code: int, message: str
) -> None:
    """A node would wait for its turn, and then fail."""
    if command == "BROKEN":
        broken = tmp_path / "broken"
        broken.write_bytes(b"#!/bin/sh\r\nexit 0\r\n")
        broken.chmod(0o755)
        command = str(broken)
    # Nor is the store asked: it is not there.
    outcome = run(*booting.argv("--store=etcd://127.0.0.1:1"), "--", command)
    assert outcome.code == code
    error = error_of(outcome)
    assert error.startswith("cannot start '")
    assert message in error


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (Path.unlink, 127, "there is no such file"),
        (lambda path: path.chmod(0o644), 126, "it is not executable for this user"),
        (lambda path: path.write_text("#!/nowhere/sh\n"), 127, "its first line asks"),
        (lambda path: path.write_bytes(b"\0\1\2"), 126, "it is neither a program nor"),
    ],
)
def test_what_cannot_be_started_any_more_frees_the_lease(
    run: Run,
    tmp_path: Path,
    store: Store,
    booting: RunScript,
    change: Callable[[Path], object],
    code: int,
    why: str,
) -> None:
    """An update while it queued would hold up the next node, or look like a crash."""
    assert acquire(run, "es-0").code == 0
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    env = environment(booting.path)
    with started([*booting.argv(), "--", str(command)], env) as running:
        wait_until(lambda: HELD in keys(store))
        change(command)
        assert run("release-lease", "--label=es", "--service-id=es-0").code == 0
        outcome = finish(running)
    assert outcome.code == code
    assert f"cannot start '{command}': {why}" in outcome.err
    assert keys(store) == []


def test_options_of_the_command_are_its_own(sound: RunScript) -> None:
    """Its --label would change ours, or ours be looked for among its."""
    argv = [*sound.argv(), "echo", "--label=x", "--", "-h"]
    with started(argv, environment(sound.path)) as running:
        outcome = finish(running)
    assert (outcome.code, outcome.out) == (0, "--label=x -- -h\n")

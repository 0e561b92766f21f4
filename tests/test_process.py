"""The commands as processes: signals, and an end that nothing holds up."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from integration.support.cli import CLI
from integration.support.commands import (
    HANG,
    WATCH,
    Run,
    acquire,
    by_python,
    ended,
    environment,
    finish,
    is_up,
    keys,
    passing,
    started,
    wait_until,
)
from integration.support.loopback import Serve, answering, hanging, status
from service_monitor.net.calls import STOP_GRACE
from service_monitor.net.stop import Stop
from service_monitor.node import signals
from service_monitor.node.ending import Ending
from service_monitor.stores.base import Store
from service_monitor.timing import now

STOPS = [
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR),
    *(signal.SIGALRM, signal.SIGXCPU),
    *(signal.SIGRTMIN + 3, signal.SIGRTMIN + 4, signal.SIGRTMAX),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
]
"""What an image's STOPSIGNAL, a unit's KillSignal or a terminal that closes sends."""


def is_queued(store: Store, name: str) -> bool:
    return f"es/lease/{name}" in keys(store)


@pytest.mark.promise(9)
@pytest.mark.parametrize("number", STOPS)
def test_a_signal_while_queued_leaves_no_ticket(
    run: Run, store: Store, path: Path, number: int
) -> None:
    """`systemctl stop` would hang, and the queue wait for a node that is gone."""
    assert acquire(run, "es-1").code == 0
    argv = ["acquire-lease", "--label=es", "--service-id=es-2"]
    with started(argv, environment(path)) as running:
        wait_until(lambda: is_queued(store, "es-2"))
        begun = now()
        running.send_signal(number)
        outcome = finish(running)
    assert now() - begun < STOP_GRACE + 2
    assert (outcome.code, outcome.out) == (128 + number, "")
    assert "Traceback" not in outcome.err
    assert keys(store) == ["es/lease/es-1"]


@pytest.mark.promise(6, 9)
@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_watch_well(
    store: Store, path: Path, serve: Serve, number: int
) -> None:
    """Others would join a node that was stopped on purpose."""
    url = serve(answering(status("200 OK"))).url
    argv = ["watch", "--label=es", "--service-id=es-1", f"--monitor-url={url}"]
    with started(argv, environment(path)) as running:
        wait_until(lambda: is_up(store, "es/hosts/es-1"))
        running.send_signal(number)
        outcome = finish(running)
    assert (outcome.code, outcome.out) == (0, "")
    assert "Traceback" not in outcome.err
    assert passing(store) == []


def test_a_background_command_still_ends_by_ctrl_c(
    run: Run, store: Store, path: Path
) -> None:
    """A shell starts `... &` with SIGINT ignored: only SIGTERM would end it."""
    assert acquire(run, "es-1").code == 0
    argv = ["acquire-lease", "--label=es", "--service-id=es-2"]
    with started(argv, environment(path), preexec_fn=in_background) as running:
        wait_until(lambda: is_queued(store, "es-2"))
        running.send_signal(signal.SIGINT)
        assert finish(running).code == 130
    assert keys(store) == ["es/lease/es-1"]


def in_background() -> None:
    for number in signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1:
        signal.signal(number, signal.SIG_IGN)


def under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_keeps_its_meaning(run: Run, store: Store, path: Path) -> None:
    """What was started to outlive the terminal would end with it."""
    assert acquire(run, "es-1").code == 0
    argv = ["acquire-lease", "--label=es", "--service-id=es-2"]
    with started(argv, environment(path), preexec_fn=under_nohup) as running:
        wait_until(lambda: is_queued(store, "es-2"))
        running.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        assert is_queued(store, "es-2")
        running.terminate()
        assert finish(running).code == 143
    assert keys(store) == ["es/lease/es-1"]


def test_a_blocked_signal_is_heard(run: Run, store: Store, path: Path) -> None:
    """A parent that blocks signals would make us deaf to the stop."""
    assert acquire(run, "es-1").code == 0

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    argv = ["acquire-lease", "--label=es", "--service-id=es-2"]
    with started(argv, environment(path), preexec_fn=block) as running:
        wait_until(lambda: is_queued(store, "es-2"))
        running.send_signal(signal.SIGHUP)
        assert finish(running).code == 129
    assert keys(store) == ["es/lease/es-1"]


def test_a_window_that_is_resized_ends_nothing(
    run: Run, store: Store, path: Path
) -> None:
    """A `watch` in a terminal would end when somebody makes the window larger."""
    assert acquire(run, "es-1").code == 0
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    argv = ["acquire-lease", "--label=es", "--service-id=es-2"]
    with started(argv, environment(path), preexec_fn=take_terminal) as running:
        wait_until(lambda: is_queued(store, "es-2"))
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        assert is_queued(store, "es-2")
        os.close(theirs)
        os.close(ours)  # the terminal is gone: SIGHUP
        assert finish(running).code == 129
    assert keys(store) == ["es/lease/es-1"]


def test_a_watch_that_is_stopped_early_says_what_stays(
    run: Run, store: Store, path: Path
) -> None:
    """The others would wait for the timeout, and nobody would know of release-lease."""
    assert acquire(run, "es-1").code == 0
    with started([*WATCH, "--service-id=es-1"], environment(path)) as running:
        wait_until(lambda: "es/hosts/es-1" in keys(store))
        running.terminate()
        outcome = finish(running)
    assert "To let the next node start now: release-lease" in outcome.err
    assert keys(store) == ["es/lease/es-1"]


@pytest.mark.parametrize(
    "argv",
    [
        ["hosts", "--label=es", "--wait"],
        ["acquire-lease", "--label=es"],
        ["status"],
        ["release-lease", "--label=es"],
        ["forget", "--label=es", "--service-id=es-1"],
    ],
)
def test_a_store_that_hangs_does_not_hold_up_the_end(
    path: Path, serve: Serve, argv: list[str]
) -> None:
    """The service manager would have to kill us."""
    server = serve(hanging)
    store = f"--store=etcd://127.0.0.1:{server.port}"
    with started([*argv, store], environment(path)) as running:
        wait_until(lambda: server.connections > 0)
        begun = now()
        running.terminate()
        outcome = finish(running)
    assert now() - begun < STOP_GRACE + 3
    assert outcome.code == 143
    assert "Traceback" not in outcome.err


def test_a_signal_at_the_very_start(path: Path) -> None:
    """A stop right after the start would be lost, or end in a traceback."""
    argv = ["hosts", "--label=es", "--wait"]
    for delay in 0.02, 0.06, 0.1, 0.2:
        with started(argv, environment(path)) as running:
            time.sleep(delay)
            running.terminate()
            outcome = finish(running)
        assert outcome.code in (143, -signal.SIGTERM)  # before Python was up
        assert outcome.err == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["hosts", "--label=es"],
        ["status"],
        ["release-lease", "--label=es"],
        ["forget", "--label=es", "--service-id=es-2"],
    ],
)
def test_a_signal_before_the_first_call_counts(
    run: Run, store: Store, argv: list[str]
) -> None:
    """A script that was told to stop would go on with an answer, and act on it."""
    assert acquire(run, "es-1").code == 0
    stop = Stop()
    stop.request(signal.SIGTERM)
    assert run(*argv, stop=stop) == (143, "", "")
    assert keys(store) == ["es/lease/es-1"]


def test_slow_imports_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """On a cold or busy disk a stop would take as long as the start."""
    (tmp_path / "click.py").write_text(f"import time\ntime.sleep({HANG})\n")
    env = environment(tmp_path / "db", PYTHONPATH=f"{tmp_path}:{os.getcwd()}")
    with started(["hosts", "--label=es"], env) as running:
        status_file = Path(f"/proc/{running.pid}/status")
        blocked = re.compile(r"^SigBlk:\s*(\w+)$", re.MULTILINE)

        def is_ready() -> bool:
            found = blocked.search(status_file.read_text())
            return bool(found and int(found[1], 16) >> (signal.SIGTERM - 1) & 1)

        wait_until(is_ready)
        begun = now()
        running.terminate()
        outcome = finish(running)
    assert now() - begun < STOP_GRACE + 3
    assert outcome == (143, "", "")


def test_what_is_not_ours_cannot_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipe that nobody reads, or a dead disk, would make SIGTERM do nothing."""
    waited: list[float] = []
    taken = signal.struct_siginfo([signal.SIGTERM, *[0] * 6])
    monkeypatch.setattr(signal, "sigwaitinfo", lambda _: taken)
    monkeypatch.setattr(signal, "sigtimedwait", lambda _, left: waited.append(left))
    monkeypatch.setattr(os, "_exit", sys.exit)
    stop, ending = Stop(), Ending()
    assert ending.forced_after > STOP_GRACE
    ending.forced_after = 0.1
    with pytest.raises(SystemExit) as ended:
        signals.obey(stop, ending, signals.STOPS)
    assert ended.value.code == 143
    assert stop.signal == signal.SIGTERM
    assert 0 < waited[0] <= 0.1


def test_the_installed_script_is_the_same(path: Path) -> None:
    """The name in every document would not be found."""
    script = Path(sys.executable).with_name("service-monitor")
    for installed in (str(script),), CLI:
        argv = ["hosts", "--label=es"]
        assert ended(argv, environment(path), cli=installed) == (0, "\n", "")


@pytest.mark.promise(5)
def test_a_waiter_gets_its_turn_from_the_one_before(
    run: Run, store: Store, path: Path, serve: Serve
) -> None:
    """Clustered services would not start one after the other: the whole point."""
    assert acquire(run, "es-1", "--host=10.0.0.1").code == 0
    argv = ["acquire-lease", "--label=es", "--service-id=es-2", "--print-token"]
    url = serve(answering(status("200 OK"))).url
    watch = ["watch", "--label=es", "--service-id=es-1", "--host=10.0.0.1"]
    with started(argv, environment(path)) as waiter:
        wait_until(lambda: is_queued(store, "es-2"))
        with started([*watch, f"--monitor-url={url}"], environment(path)) as watcher:
            outcome = finish(waiter)
            assert outcome.code == 0
            assert int(outcome.out) > 0
            assert "position 1, held by es-1 (10.0.0.1)" in outcome.err
            assert run("hosts", "--label=es").out == "10.0.0.1\n"
            watcher.terminate()
            assert finish(watcher).code == 0


def test_no_line_of_a_library_is_ours(path: Path) -> None:
    """A traceback of 640 bytes would be logged at each probe, or a header's secret."""
    script = """
import logging, sys, warnings
import service_monitor.__main__ as process
import service_monitor.cli.app as command

def run(stop, ending):
    code = command.main(["status", "--log-level=debug"], stop, ending)
    logging.getLogger("service_monitor.x").warning("ours")
    for name in "urllib3.connection", "botocore", "py.warnings", "root":
        logging.getLogger(name).error("theirs", exc_info=ValueError("theirs"))
    warnings.warn("theirs")
    return code

sys.modules["service_monitor.cli.app"] = type(sys)("stub")
sys.modules["service_monitor.cli.app"].main = run
process.main()
"""
    outcome = ended((), environment(path), cli=by_python(script))
    assert outcome.code == 0
    assert "ours" in outcome.err
    assert "theirs" not in outcome.err

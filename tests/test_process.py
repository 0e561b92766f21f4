"""The commands as processes: signals, pipes, locales."""

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

import psutil
import pytest

from integration.support.commands import (
    HANG,
    WATCH,
    Run,
    acquire,
    environment,
    finish,
    is_up,
    keys,
    register,
    started,
    wait_until,
)
from integration.support.loopback import Serve, answering, hanging, status
from service_monitor.net.calls import STOP_GRACE, Stop
from service_monitor.node import signals
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
    assert keys(store) == []


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


ADOPT = """
import ctypes, os, sys
assert not ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
if os.fork() == 0:
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "2"])
    os._exit(0)
os.execv(sys.executable, [sys.executable, "-m", "service_monitor", *sys.argv[1:]])
"""
"""Gives a command an orphan as PID 1 gets them, and a child from before its `exec`."""


@pytest.mark.parametrize(
    "argv",
    [
        WATCH,
        ("acquire-lease", "--label=es", "--service-id=es-2"),
        ("run", *WATCH[1:], "--service-id=es-2", "--", "sleep", "60"),
        ("hosts", "--label=es", "--wait"),
    ],
    ids=lambda argv: argv[0],
)
def test_orphans_are_collected_at_all_times(
    run: Run, path: Path, argv: tuple[str, ...]
) -> None:
    """As PID 1 it would fill the process table with what health checks leave."""
    assert acquire(run, "es-1").code == 0
    command = [sys.executable, "-c", ADOPT, *argv]
    with subprocess.Popen(command, env=environment(path)) as running:
        try:
            ours = psutil.Process(running.pid)
            wait_until(lambda: [c.name() for c in ours.children()] == ["sleep"])
            wait_until(lambda: not ours.children())
            assert running.poll() is None
        finally:
            running.kill()


def test_the_children_of_a_library_are_left_to_it(tmp_path: Path) -> None:
    """botocore would take the credentials of its helper for missing."""
    code = """
import os, subprocess, threading, time
from service_monitor.node.reaper import collect_orphans
def use():
    helper = subprocess.Popen(["sh", "-c", "exit 7"])
    time.sleep(0.5)
    os.kill(os.getpid(), 17)  # SIGCHLD to the main thread, as an orphan's end is
    time.sleep(0.2)
    os._exit(helper.wait())
threading.Thread(target=use).start()
collect_orphans()
"""
    env = environment(tmp_path / "db")
    done = subprocess.run([sys.executable, "-c", code], env=env, timeout=HANG)
    assert done.returncode == 7


@pytest.mark.parametrize(
    "argv",
    [
        ["hosts", "--label=es", "--wait"],
        ["acquire-lease", "--label=es"],
        ["status"],
        ["release-lease", "--label=es"],
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
    [["hosts", "--label=es"], ["status"], ["release-lease", "--label=es"]],
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
    stop = Stop()
    assert stop.patience > STOP_GRACE
    stop.patience = 0.1
    with pytest.raises(SystemExit) as ended:
        signals.obey(stop, signals.STOPS)
    assert ended.value.code == 143
    assert stop.signal == signal.SIGTERM
    assert 0 < waited[0] <= 0.1


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


def test_the_installed_script_is_the_same(path: Path) -> None:
    """The name in every document would not be found."""
    script = Path(sys.executable).with_name("service-monitor")
    for command in [str(script)], [sys.executable, "-m", "service_monitor"]:
        done = subprocess.run(
            [*command, "hosts", "--label=es"],
            env=environment(path),
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


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

def run(stop):
    code = command.main(["status", "--log-level=debug"], stop)
    logging.getLogger("service_monitor.x").warning("ours")
    for name in "urllib3.connection", "botocore", "py.warnings", "root":
        logging.getLogger(name).error("theirs", exc_info=ValueError("theirs"))
    warnings.warn("theirs")
    return code

sys.modules["service_monitor.cli.app"] = type(sys)("stub")
sys.modules["service_monitor.cli.app"].main = run
process.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0
    assert "ours" in done.stderr
    assert "theirs" not in done.stderr

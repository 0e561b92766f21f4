"""`run` is stopped: what it tells the command, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from integration.support.commands import (
    HANG,
    Run,
    acquire,
    environment,
    finish,
    is_up,
    keys,
    passing,
    started,
    wait_until,
)
from integration.support.run_script import HELD, UP, RunScript, left_by
from service_monitor.net.calls import Bounds
from service_monitor.node.child import Child
from service_monitor.records import lease_prefix
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

STOPS = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGQUIT,
    signal.SIGPWR: signal.SIGPWR,
    signal.SIGALRM: signal.SIGALRM,
    signal.SIGXCPU: signal.SIGXCPU,
    signal.SIGRTMIN + 3: signal.SIGRTMIN + 3,
}
"""What `run` is sent to stop, and what COMMAND is."""


@pytest.mark.promise(9)
@pytest.mark.parametrize(("number", "passed"), STOPS.items())
def test_a_signal_deregisters_first(
    store: Store, sound: RunScript, number: int, passed: int
) -> None:
    """Others would be told to join a node that is going down."""
    script = "for s in 1 2 3 10 12 14 15 24 30 37; do "
    script += 'trap "echo got $s >>$SEEN; exit 3" $s; '
    script += "done; echo up >$SEEN; while :; do sleep 0.05; done"
    with sound(script, "--drain=1s") as running:
        wait_until(lambda: is_up(store, UP))
        sound.wait_for("up")
        begun = now()
        running.send_signal(number)
        wait_until(lambda: passing(store) == [])
        assert sound.said() == "up\n"  # draining
        assert finish(running).code == 3
    assert now() - begun >= 1
    assert sound.said() == f"up\ngot {int(passed)}\n"


@pytest.mark.promise(9)
@pytest.mark.parametrize("number", [*STOPS, signal.SIGUSR1, signal.SIGWINCH])
def test_a_signal_while_queued_starts_nothing(
    run: Run, store: Store, sound: RunScript, number: int
) -> None:
    """`systemctl stop` would start what it is to stop."""
    assert acquire(run, "es-0").code == 0
    with sound("echo started >$SEEN") as running:
        wait_until(lambda: HELD in keys(store))
        running.send_signal(number)
        assert finish(running).code == 128 + number
    assert keys(store) == ["es/lease/es-0"]
    assert sound.said() == ""


def test_who_does_not_stop_is_killed(store: Store, sound: RunScript) -> None:
    """The stop would hang until the service manager kills us, record and all."""
    script = "trap '' TERM; (trap '' TERM; sleep 60) & echo $! >$SEEN; wait; sleep 60"
    with sound(script, "--stop-timeout=300ms") as running:
        sound.wait_for("\n")
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        outcome = finish(running)
    assert outcome.code == 137
    assert "sh still runs 0.3 s after signal 15: killing it" in outcome.err
    grandchild = Path(f"/proc/{sound.said().strip()}/stat")
    wait_until(lambda: not grandchild.exists() or " Z " in grandchild.read_text())


GROUP = """
trap 'echo command >>$SEEN; exit 3' TERM USR1
(trap 'echo worker >>$SEEN; exit' TERM USR1; while :; do sleep 0.05; done) &
echo up >$SEEN; while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("whom", "told", "killed"),
    [("group", {"command", "worker"}, False), ("command", {"command"}, True)],
)
def test_the_stop_goes_to_whom_it_is_to(
    sound: RunScript, store: Store, whom: str, told: set[str], killed: bool
) -> None:
    """Workers would end under the hands of the one that ends them in order."""
    with sound(GROUP, f"--stop-whom={whom}", "--stop-timeout=700ms") as running:
        sound.wait_for("up")
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        outcome = finish(running)
    assert outcome.code == 3
    assert set(sound.said().split()) == {"up"} | told
    # What it left is not told, but it does not stay.
    assert ("sh still runs 0.7 s after signal 15: killing it" in outcome.err) == killed
    assert not left_by(sound)


def test_a_reload_goes_to_whom_the_stop_goes(sound: RunScript) -> None:
    """It would end the workers, which have no use for it."""
    with sound(GROUP, "--stop-whom=command", "--stop-timeout=10ms") as running:
        sound.wait_for("up")
        running.send_signal(signal.SIGUSR1)
        assert finish(running).code == 3
    assert sound.said() == "up\ncommand\n"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH])
def test_the_stop_signal_of_an_image_deregisters_first(
    store: Store, sound: RunScript, number: signal.Signals
) -> None:
    """HAProxy and httpd would drain while others are still told to join them."""
    script = f"trap 'echo got >>$SEEN; exit 3' {number.value}; echo up >$SEEN; "
    script += "while :; do sleep 0.05; done"
    with sound(script, "--drain=1s", f"--stop-signal={number.name}") as running:
        wait_until(lambda: is_up(store, UP))
        sound.wait_for("up")
        running.send_signal(number)
        wait_until(lambda: passing(store) == [])
        assert sound.said() == "up\n"  # draining
        assert finish(running).code == 3
    assert sound.said() == "up\ngot\n"


@pytest.mark.parametrize("whom", ["group", "command"])
def test_a_command_that_stands_still_is_told_and_can_be_stopped(
    store: Store, sound: RunScript, whom: str
) -> None:
    """Nobody would know why it is down, and its stop would end in SIGKILL."""
    script = "trap 'exit 3' TERM; echo $$ >$SEEN; while :; do sleep 0.05; done"
    with sound(script, f"--stop-whom={whom}") as running:
        sound.wait_for("\n")
        wait_until(lambda: is_up(store, UP))
        os.kill(int(sound.said()), signal.SIGSTOP)
        child = psutil.Process(int(sound.said()))
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
        time.sleep(0.3)
        running.terminate()
        outcome = finish(running)
    assert outcome.code == 3
    said = f"sh stands still (SIGSTOP): kill -CONT {child.pid} lets it go on"
    assert outcome.err.count(said) == 1


def test_one_that_reads_from_the_terminal_is_told(sound: RunScript) -> None:
    """It would hang without a word, as it is in the background of the terminal."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    argv = [*sound.argv(), "--", "sh", "-c", "echo up >$SEEN; read line"]
    env = environment(sound.path, SEEN=str(sound.seen))
    with started(argv, env, stdin=theirs, preexec_fn=take_terminal) as running:
        sound.wait_for("up")
        time.sleep(0.5)
        running.terminate()
        outcome = finish(running)
    os.close(ours)
    os.close(theirs)
    assert "stands still (SIGTTIN, as it uses the terminal, and is in" in outcome.err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 143), (signal.SIGQUIT, 131), (signal.SIGUSR2, 140)],
)
def test_a_signal_just_after_the_start_leaves_no_orphan(
    store: Store, booting: RunScript, number: signal.Signals, code: int
) -> None:
    """COMMAND would run on, unwatched, and a second one be started beside it."""
    script = f"kill -{number.value} $PPID; exec sleep 60"
    with booting(script) as running:
        assert finish(running).code == code
    assert not left_by(booting)
    assert passing(store) == []


def test_no_signal_goes_to_a_group_that_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of somebody else's processes by then."""
    sent: list[tuple[int, int]] = []
    over = threading.Event()
    child = Child(("true",), os.environ, lambda _: over.set())
    assert over.wait(HANG)
    for name in "kill", "killpg":
        monkeypatch.setattr(os, name, lambda *args: sent.append(args))
    assert not child.send(signal.SIGUSR1)
    child.stop(signal.SIGTERM, 1, Bounds().stop)
    child.kill()
    assert sent == []
    assert child.code == 0


def test_what_holds_us_up_does_not_save_the_command(
    store: Store, sound: RunScript
) -> None:
    """With a log that nobody reads it would run on, unwatched, when we are gone."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    argv = ["--log-level=warning", "--drain=10ms", "--stop-timeout=10ms"]
    script = "trap '' TERM; echo $$ >$SEEN; while :; do sleep 0.1; done"
    env = environment(sound.path, SEEN=str(sound.seen))
    command = [*sound.argv(*argv), "--", "sh", "-c", script]
    with started(command, env, stderr=writing) as running:
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        assert running.wait(HANG) == 143
    child = Path(f"/proc/{sound.said().strip()}/stat")
    wait_until(lambda: not child.exists() or " Z " in child.read_text())
    os.close(reading)
    os.close(writing)


def test_a_second_signal_cuts_the_drain_short(store: Store, sound: RunScript) -> None:
    """Who is in a hurry would have to use SIGKILL, which leaves the record."""
    with sound("exec sleep 60", "--drain=1h") as running:
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        wait_until(lambda: passing(store) == [])
        running.send_signal(signal.SIGINT)
        assert finish(running).code == 128 + signal.SIGINT


def test_a_second_signal_is_not_ignored_with_the_first(
    store: Store, sound: RunScript
) -> None:
    """A drain of an hour could only be cut short with SIGKILL."""
    script = "trap '' TERM; while :; do sleep 0.1; done"
    with sound(script, "--drain=1h", "--stop-timeout=200ms") as running:
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        wait_until(lambda: passing(store) == [])
        running.terminate()
        assert finish(running).code == 137


@pytest.mark.parametrize("name", ["USR1", "USR2", "WINCH", "RTMIN+1"])
def test_other_signals_are_the_commands(sound: RunScript, name: str) -> None:
    """A reload would end the watch instead."""
    code = "import os, signal, sys, time; seen = os.environ['SEEN']\n"
    code += "signal.signal(int(sys.argv[1]), lambda *_: open(seen, 'a').write('got'))\n"
    code += "open(seen, 'a').write('ready')\nwhile True: time.sleep(0.05)"
    base, _, plus = name.partition("+")
    number = getattr(signal, f"SIG{base}") + int(plus or 0)
    env = environment(sound.path, SEEN=str(sound.seen))
    argv = [*sound.argv(), "--", sys.executable, "-c", code, str(number)]
    with started(argv, env) as running:
        sound.wait_for("ready")
        running.send_signal(number)
        sound.wait_for("got")
        running.terminate()
        assert finish(running).code == 143


def spoil_signals() -> None:
    """Ignore and block all that can be, as a careless parent does."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_the_command_gets_signals_as_from_a_shell(sound: RunScript) -> None:
    """It could not be stopped: we block the signals that end us, or our parent did."""
    script = "exec grep -E 'SigBlk|SigIgn' /proc/self/status >$SEEN"
    argv = [*sound.argv(), "--", "sh", "-c", script]
    env = environment(sound.path, SEEN=str(sound.seen))
    with started(argv, env, preexec_fn=spoil_signals) as running:
        assert finish(running).code == 0
    blocked, ignored = (line.split()[1] for line in sound.said().splitlines())
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & 0x7FFFFFFF == 0  # above are the C library's own


def test_an_end_in_an_outage_is_an_end(tmp_path: Path, booting: RunScript) -> None:
    """A store that is away would keep a machine from going down."""
    moved = tmp_path / "moved"
    with booting("exec sleep 60") as running:
        store = SqliteStore(str(booting.path), Bounds())
        wait_until(lambda: lease_prefix("es") + "es-1" in keys(store))
        store.close()
        booting.path.rename(moved)
        booting.path.mkdir()
        begun = now()
        running.terminate()
        assert finish(running).code == 143
    assert now() - begun < HANG

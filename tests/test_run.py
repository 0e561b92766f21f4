"""`run`: a command that is started at its turn, watched, and ended well."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from integration.support.commands import (
    HANG,
    Run,
    acquire,
    environment,
    error_of,
    finish,
    is_up,
    keys,
    register,
    registration,
    started,
    wait_until,
)
from integration.support.loopback import Serve, answering, hanging, status
from service_monitor.net.calls import Stop
from service_monitor.node.child import Child
from service_monitor.recipes.lease import HOLDER_TTL
from service_monitor.records import Registration, hosts_prefix, lease_prefix
from service_monitor.stores.base import Store
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

SHOW = 'echo "$SERVICE_MONITOR_FIRST ${SERVICE_MONITOR_HOSTS-unset}" >&2; '
HELD = "es/lease/es-1"
UP = "es/hosts/es-1"


class Service:
    """Starts `run` with a shell script as COMMAND."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self.seen = path.with_name("seen")

    def __call__(
        self, script: str, *options: str, env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Popen[str]]:
        return started(
            [*self.argv(*options), "--", "sh", "-c", script],
            environment(self.path, SEEN=str(self.seen), **(env or {})),
        )

    def argv(self, *options: str) -> Sequence[str]:
        who = ("--label=es", "--service-id=es-1", "--host=10.0.0.1")
        return "run", *who, f"--monitor-url={self.url}", *options

    def said(self) -> str:
        return self.seen.read_text() if self.seen.exists() else ""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.said())


@pytest.fixture
def sound(path: Path, serve: Serve) -> Service:
    """Give a service that is up at once."""
    return Service(path, serve(answering(status("200 OK"))).url)


@pytest.fixture
def booting(path: Path) -> Service:
    """Give a service that never comes up."""
    return Service(path, "tcp://127.0.0.1:1")


def test_the_first_is_told_so_and_publishes(store: Store, sound: Service) -> None:
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
    assert keys(store) == []


def test_the_next_is_told_whom_to_join(store: Store, sound: Service) -> None:
    """It would found a second cluster; or wait for its own earlier life."""
    register(store, "es-0", "10.0.0.9")
    register(store, "es-1", "10.0.0.1")
    with sound(SHOW) as running:
        outcome = finish(running)
    assert outcome.code == 0
    assert "\n0 10.0.0.9\n" in outcome.err


def test_a_registered_port_is_told(store: Store, sound: Service) -> None:
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


def test_it_waits_for_its_turn(run: Run, store: Store, sound: Service) -> None:
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
    store: Store, booting: Service, script: str, code: int
) -> None:
    """The service manager would take a crash for success; the next node would wait."""
    begun = now()
    with booting(script) as running:
        assert finish(running).code == code
    assert now() - begun < HOLDER_TTL  # the lease did not lapse: it was given back
    assert keys(store) == []


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
    store: Store, sound: Service, number: int, passed: int
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
        wait_until(lambda: keys(store) == [])
        assert sound.said() == "up\n"  # draining
        assert finish(running).code == 3
    assert now() - begun >= 1
    assert sound.said() == f"up\ngot {int(passed)}\n"


@pytest.mark.promise(9)
@pytest.mark.parametrize("number", [*STOPS, signal.SIGUSR1, signal.SIGWINCH])
def test_a_signal_while_queued_starts_nothing(
    run: Run, store: Store, sound: Service, number: int
) -> None:
    """`systemctl stop` would start what it is to stop."""
    assert acquire(run, "es-0").code == 0
    with sound("echo started >$SEEN") as running:
        wait_until(lambda: HELD in keys(store))
        running.send_signal(number)
        assert finish(running).code == 128 + number
    assert keys(store) == ["es/lease/es-0"]
    assert sound.said() == ""


def test_who_does_not_stop_is_killed(store: Store, sound: Service) -> None:
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
    sound: Service, store: Store, whom: str, told: set[str], killed: bool
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


def left_by(sound: Service) -> list[psutil.Process]:
    """Return what COMMAND has left behind."""
    seen = {"SEEN": str(sound.seen)}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and (
                seen.items() <= process.environ().items()
            ):
                found.append(process)
    return found


def test_a_reload_goes_to_whom_the_stop_goes(sound: Service) -> None:
    """It would end the workers, which have no use for it."""
    with sound(GROUP, "--stop-whom=command", "--stop-timeout=10ms") as running:
        sound.wait_for("up")
        running.send_signal(signal.SIGUSR1)
        assert finish(running).code == 3
    assert sound.said() == "up\ncommand\n"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH])
def test_the_stop_signal_of_an_image_deregisters_first(
    store: Store, sound: Service, number: signal.Signals
) -> None:
    """HAProxy and httpd would drain while others are still told to join them."""
    script = f"trap 'echo got >>$SEEN; exit 3' {number.value}; echo up >$SEEN; "
    script += "while :; do sleep 0.05; done"
    with sound(script, "--drain=1s", f"--stop-signal={number.name}") as running:
        wait_until(lambda: is_up(store, UP))
        sound.wait_for("up")
        running.send_signal(number)
        wait_until(lambda: keys(store) == [])
        assert sound.said() == "up\n"  # draining
        assert finish(running).code == 3
    assert sound.said() == "up\ngot\n"


@pytest.mark.parametrize("whom", ["group", "command"])
def test_a_command_that_stands_still_is_told_and_can_be_stopped(
    store: Store, sound: Service, whom: str
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


def test_one_that_reads_from_the_terminal_is_told(sound: Service) -> None:
    """It would hang without a word, as it is in the background of the terminal."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    argv = [*sound.argv(), "--", "sh", "-c", "echo up >$SEEN; read line"]
    env = environment(sound.path, SEEN=str(sound.seen))
    settings = {"stdin": theirs, "preexec_fn": take_terminal}
    with started(argv, env, **settings) as running:
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
    store: Store, booting: Service, number: signal.Signals, code: int
) -> None:
    """COMMAND would run on, unwatched, and a second one be started beside it."""
    script = f"kill -{number.value} $PPID; exec sleep 60"
    with booting(script) as running:
        assert finish(running).code == code
    assert not left_by(booting)
    assert keys(store) == []


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
    child.stop(signal.SIGTERM, 1, Stop())
    child.kill()
    assert sent == []
    assert child.code == 0


def test_what_holds_us_up_does_not_save_the_command(
    store: Store, sound: Service
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


def test_a_second_signal_cuts_the_drain_short(store: Store, sound: Service) -> None:
    """Who is in a hurry would have to use SIGKILL, which leaves the record."""
    with sound("exec sleep 60", "--drain=1h") as running:
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        wait_until(lambda: keys(store) == [])
        running.send_signal(signal.SIGINT)
        assert finish(running).code == 128 + signal.SIGINT


def test_a_second_signal_is_not_ignored_with_the_first(
    store: Store, sound: Service
) -> None:
    """A drain of an hour could only be cut short with SIGKILL."""
    script = "trap '' TERM; while :; do sleep 0.1; done"
    with sound(script, "--drain=1h", "--stop-timeout=200ms") as running:
        wait_until(lambda: is_up(store, UP))
        running.terminate()
        wait_until(lambda: keys(store) == [])
        running.terminate()
        assert finish(running).code == 137


def test_its_end_is_seen_where_sigchld_is_ignored(booting: Service) -> None:
    """Some parents pass that on: a dead command would hold the lease to its end."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    code += "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"
    argv = ["service_monitor", *booting.argv(), "--", "sh", "-c", "exit 3"]
    env = environment(booting.path)
    done = subprocess.run([sys.executable, "-c", code, *argv], env=env, timeout=HANG)
    assert done.returncode == 3


def test_a_run_that_is_up_leaves_the_lease_of_the_next_alone(
    run: Run, store: Store, sound: Service, path: Path
) -> None:
    """Where redeploys overlap, the new start would lose its turn to the old one."""
    with sound("exec sleep 60") as old:
        wait_until(lambda: is_up(store, UP))
        wait_until(lambda: HELD not in keys(store))
        assert acquire(run, "es-1").code == 0
        time.sleep(1)
        assert HELD in keys(store)
        old.terminate()
        assert "this service holds the startup lease" not in finish(old).err
    assert keys(store) == [HELD]


@pytest.mark.parametrize("name", ["USR1", "USR2", "WINCH", "RTMIN+1"])
def test_other_signals_are_the_commands(sound: Service, name: str) -> None:
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


def test_the_command_gets_signals_as_from_a_shell(sound: Service) -> None:
    """It could not be stopped: we block the signals that end us, or our parent did."""
    script = "exec grep -E 'SigBlk|SigIgn' /proc/self/status >$SEEN"
    argv = [*sound.argv(), "--", "sh", "-c", script]
    env = environment(sound.path, SEEN=str(sound.seen))
    with started(argv, env, preexec_fn=spoil_signals) as running:
        assert finish(running).code == 0
    blocked, ignored = (line.split()[1] for line in sound.said().splitlines())
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & 0x7FFFFFFF == 0  # above are the C library's own


def test_systemd_hears_us_and_not_the_command(path: Path, sound: Service) -> None:
    """A service that says READY itself would be ready before it is up."""
    with sound(
        "echo ${NOTIFY_SOCKET-none} >$SEEN", env={"NOTIFY_SOCKET": str(path) + "-x"}
    ) as running:
        finish(running)
    assert sound.said() == "none\n"


@pytest.mark.promise(3)
def test_a_lease_is_kept_only_while_its_holder_lives(
    store: Store, booting: Service
) -> None:
    """A machine that dies while it boots would hold up all others for minutes."""
    script = "echo $$ >$SEEN; exec sleep 60"
    with booting(script, "--lease-timeout=1h") as running:
        wait_until(lambda: HELD in keys(store))
        (record,) = store.list(HELD).records
        wait_until(lambda: store.time_left(record) <= HOLDER_TTL - 8)
        wait_until(lambda: store.time_left(record) > HOLDER_TTL - 1)  # renewed
        os.kill(running.pid, signal.SIGKILL)
        os.kill(int(booting.said()), signal.SIGKILL)  # an orphan, as documented
        assert store.time_left(record) <= HOLDER_TTL


@pytest.mark.promise(3)
def test_the_lease_timeout_is_the_end_of_it(store: Store, booting: Service) -> None:
    """A node that never comes up would hold up all others for ever."""
    options = ("--lease-timeout=1s", "--on-lease-lost=continue")
    with booting("exec sleep 60", *options) as running:
        wait_until(lambda: HELD in keys(store))
        begun = now()
        wait_until(lambda: HELD not in keys(store))
        assert now() - begun < 2
        time.sleep(1)
        assert running.poll() is None
        running.terminate()
        outcome = finish(running)
    why = "--lease-timeout 1 s is over and the service was not up"
    lost = "the startup lease went before the service was up (connection refused): "
    assert outcome.err.count(lost) == 1
    assert f"{lost}{why}" in outcome.err
    assert "paused" not in outcome.err  # neither was
    assert "renewed" not in outcome.err


def test_who_founds_stops_with_its_lease(store: Store, booting: Service) -> None:
    """Two nodes would found a cluster each: the next one is told to found it, too."""
    with booting(f"{SHOW} exec sleep 60", "--lease-timeout=1s") as running:
        outcome = finish(running)
    assert "\n1 \n" in outcome.err
    assert outcome.code == 1
    assert keys(store) == []


def test_who_joins_goes_on_without_its_lease(store: Store, booting: Service) -> None:
    """A slow boot would be ended and begun again for ever, for no gain."""
    register(store, "es-0", "10.0.0.9")
    with booting(f"{SHOW} exec sleep 60", "--lease-timeout=1s") as running:
        wait_until(lambda: HELD in keys(store))
        wait_until(lambda: HELD not in keys(store))
        time.sleep(1)
        assert running.poll() is None
        running.terminate()
        outcome = finish(running)
    assert "\n0 10.0.0.9\n" in outcome.err
    assert outcome.code == 143


def test_a_founder_whose_store_hangs_stops_by_its_deadline(
    tmp_path: Path, store: Store, sound: Service
) -> None:
    """Cut off, it would found a cluster beside the one that the next node founds.

    It is up, but others cannot know of it.
    """
    sound.url = "tcp://127.0.0.1:1"
    lock = (
        "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1]); "
        "db.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(99)"
    )
    script = "trap 'date +%s.%N >>$SEEN; exit' TERM; echo up >$SEEN; sleep 60 & wait"
    with sound(script, "--lease-timeout=5s") as running:
        sound.wait_for("up")
        argv = [sys.executable, "-c", lock, str(sound.path)]
        (record,) = store.list(HELD).records
        end = time.time() + store.time_left(record)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as locker:
            try:
                assert locker.stdout
                assert locker.stdout.readline() == "locked\n"
                assert finish(running).code == 1
            finally:
                locker.kill()
    assert float(sound.said().split()[1]) < end + 1


def test_an_id_on_another_host_is_waited_for(
    store: Store, booting: Service, tmp_path: Path
) -> None:
    """Two machines with one service id would both boot as the first."""
    other = ("--host=10.0.0.2", "--acquire-timeout=1s", "--on-lease-timeout=start")
    with booting("echo first >$SEEN; exec sleep 60") as first:
        booting.wait_for("first")
        with booting("echo second >>$SEEN", *other) as second:
            outcome = finish(second)
        assert first.poll() is None
        assert booting.said() == "first\n"
        assert '"10.0.0.1"' in store.list(HELD).records[0].value
    assert outcome.code == 1
    why = "service id es-1 is in use on host 10.0.0.1, where it holds the lease: give "
    assert outcome.err.count(why) == 2  # once in the log, once in the error
    assert "service-monitor: label es: lease not acquired within 1 s" in outcome.err


def test_an_id_that_is_up_on_another_host_is_waited_for(
    store: Store, sound: Service
) -> None:
    """The second machine would take the first one's record over and boot beside it."""
    with sound("echo first >$SEEN; exec sleep 60") as first:
        wait_until(lambda: is_up(store, UP))
        wait_until(lambda: HELD not in keys(store))
        with sound("echo two >$SEEN", "--host=10.0.0.2", "--acquire-timeout=1s") as two:
            outcome = finish(two)
        assert outcome.code == 1
        assert "is in use on host 10.0.0.1, where it is registered as up" in outcome.err
        assert is_up(store, UP)
        assert keys(store) == [UP]
        assert first.poll() is None
    assert sound.said() == "first\n"


def test_who_starts_again_is_not_up_while_it_queues(
    run: Run, store: Store, sound: Service
) -> None:
    """After a crash of all nodes each would be told to join the others' ghosts."""
    register(store, "es-1", "10.0.0.1")
    assert acquire(run, "es-0").code == 0
    with sound("true") as running:
        wait_until(lambda: HELD in keys(store))
        assert not is_up(store, UP)
        assert run("hosts", "--label=es").out == "\n"
        running.terminate()
        finish(running)


def test_a_lost_lease_may_stop_the_command(store: Store, booting: Service) -> None:
    """Two nodes would boot at once although the operator forbade it."""
    register(store, "es-0", "10.0.0.9")
    options = ("--lease-timeout=1s", "--on-lease-lost=stop")
    with booting("exec sleep 60", *options) as running:
        outcome = finish(running)
    assert outcome.code == 1
    assert keys(store) == ["es/hosts/es-0"]


def test_a_lease_that_is_taken_away_is_lost(
    run: Run, store: Store, booting: Service
) -> None:
    """The command would go on booting beside the next one."""
    with booting("exec sleep 60", "--on-lease-lost=stop") as running:
        wait_until(lambda: HELD in keys(store))
        wait_until(lambda: '"held"' in store.list(HELD).records[0].value)
        argv = ("release-lease", "--label=es", "--service-id=es-1", "--force")
        assert run(*argv).code == 0
        assert finish(running).code == 1


def test_a_lease_that_cannot_be_renewed_is_lost(
    tmp_path: Path, store: Store, booting: Service
) -> None:
    """A node that is cut off would boot beside the next one."""
    options = ("--on-lease-lost=stop", "--lease-timeout=3s")
    with booting("echo started >$SEEN; exec sleep 60", *options) as running:
        wait_until(lambda: bool(booting.said()))
        booting.path.rename(tmp_path / "moved")
        booting.path.mkdir()
        outcome = finish(running)
    assert outcome.code == 1
    assert "went before the service was up (connection refused): not re" in outcome.err


def test_no_turn_is_exit_1(run: Run, store: Store, sound: Service) -> None:
    """The node would start beside the holder."""
    assert acquire(run, "es-0").code == 0
    with sound("echo started >$SEEN", "--acquire-timeout=300ms") as running:
        outcome = finish(running)
    assert outcome.code == 1
    assert "lease not acquired within 0.3 s" in outcome.err
    assert sound.said() == ""
    assert keys(store) == ["es/lease/es-0"]


def test_it_may_start_without_the_lease_but_never_as_the_first(
    run: Run, store: Store, sound: Service
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
    serve: Serve, sound: Service
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


def test_a_missing_command_is_a_usage_error(run: Run, booting: Service) -> None:
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
    run: Run, tmp_path: Path, booting: Service, command: str, code: int, message: str
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
    booting: Service,
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


def test_options_of_the_command_are_its_own(sound: Service) -> None:
    """Its --label would change ours, or ours be looked for among its."""
    argv = [*sound.argv(), "echo", "--label=x", "--", "-h"]
    with started(argv, environment(sound.path)) as running:
        outcome = finish(running)
    assert (outcome.code, outcome.out) == (0, "--label=x -- -h\n")


def test_an_end_in_an_outage_is_an_end(tmp_path: Path, booting: Service) -> None:
    """A store that is away would keep a machine from going down."""
    moved = tmp_path / "moved"
    with booting("exec sleep 60") as running:
        store = SqliteStore(str(booting.path), Stop())
        wait_until(lambda: lease_prefix("es") + "es-1" in keys(store))
        store.close()
        booting.path.rename(moved)
        booting.path.mkdir()
        begun = now()
        running.terminate()
        assert finish(running).code == 143
    assert now() - begun < HANG

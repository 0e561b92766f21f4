"""Start commands of the real CLI quickly: a fork server, and what the harness may ask.

An interpreter that starts and imports costs 140 ms of CPU, which would leave too few
acquisitions for faults to strike. So one parent, without threads, imports everything
once; each command is a fork of it: a process of its own with its own pid, its own
signal state and standard streams, that runs `service_monitor.__main__.main()` to its
`os._exit`. What differs from `exec` is only that the imports are done. Signals are the
kernel's, sent by pid.

Beside the product the child has: a waiter TTL of choice, one line on stderr for each
nonce made and for what `acquire` decided (the holder's own belief, which no option
prints), an optional stop of itself before or after a store call (the worst moments to
be paused), and an optional seeded bug. Only this launcher knows of them.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

from service_monitor.timing import now

MARK = "history: "  # begins our lines on stderr
_LONGEST = 64 * 1024
_NEEDED = (
    *("__main__", "cli.app", "net.http", "node.probe", "node.watcher"),
    *("recipes.acquire", "recipes.contender", "recipes.publisher"),
    *("stores.dynamodb.store", "stores.etcd.v2", "stores.etcd.v3"),
    "stores.sqlite.store",
)
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


# --- the server and its children ------------------------------------------------------


def tell(**what: Any) -> None:
    """Say something to the harness, on stderr beside the log."""
    os.write(2, f"{MARK}{json.dumps(what)}\n".encode())


def observe() -> None:
    """Let the process tell its nonces, and what `acquire` believes when it returns."""
    from service_monitor import records
    from service_monitor.recipes import acquire, contender, lease, publisher

    def new_nonce() -> str:
        nonce = records.new_nonce()
        tell(nonce=nonce)
        return nonce

    real = acquire.acquire

    def told(*args: Any, **settings: Any) -> lease.Lease:
        found = real(*args, **settings)
        tell(decided=now(), deadline=found.deadline, believed=found.token)
        return found

    for module in contender, publisher:
        module.new_nonce = new_nonce  # type: ignore[attr-defined]
    acquire.acquire = told


def set_waiter_ttl(seconds: float) -> None:
    """Let tickets that wait live so many seconds."""
    from service_monitor.recipes.timings import TIMINGS

    object.__setattr__(TIMINGS, "waiter_ttl", seconds)  # of this process alone


def stop_at(where: str) -> None:
    """Let the process stop itself once, at e.g. "update:before" of the store's calls.

    "update:held" is before the write that turns a ticket into the lease.
    """
    from service_monitor.cli import opening

    name, _, phase = where.partition(":")
    real_open = opening.open_store  # type: ignore[attr-defined]
    done = threading.Event()

    def stop(value: Any = None) -> None:
        if phase == "held" and not (value and '"held"' in value):
            return
        if not done.is_set():
            done.set()
            os.kill(os.getpid(), signal.SIGSTOP)

    def open_store(*args: Any, **settings: Any) -> Any:
        store = real_open(*args, **settings)
        real = getattr(store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if phase != "after":
                stop(arguments[1] if len(arguments) > 1 else None)
            result = real(*arguments, **options)
            if phase == "after":
                stop()
            return result

        setattr(store, name, call)
        return store

    opening.open_store = open_store  # type: ignore[attr-defined]


def become(request: dict[str, Any]) -> NoReturn:
    """Be the command from here on."""
    from service_monitor.__main__ import main

    observe()
    if request["waiter_ttl"]:
        set_waiter_ttl(request["waiter_ttl"])
    if request["bug"]:
        from integration.history.seeded import BUGS

        BUGS[request["bug"]].plant()
    if request["stop_at"]:
        stop_at(request["stop_at"])
    sys.argv = ["service-monitor", *request["argv"]]
    main()
    os._exit(70)  # main() never returns


def keep_botocore_data() -> None:
    """Read once for all children what botocore reads for each client: 0.1 s of it."""
    import boto3
    from botocore.loaders import JSONFileLoader

    load = functools.cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda _, path: load(path)
    boto3.Session(region_name="us-east-1").client("dynamodb").close()


def serve(link: socket.socket) -> None:
    """Fork a child for each request, and report its pid, its stops and its end."""
    for name in _NEEDED:
        importlib.import_module(f"service_monitor.{name}")
    importlib.import_module("integration.history.seeded")
    importlib.import_module("etcd")
    importlib.import_module("requests")
    keep_botocore_data()
    os.environ.pop("NOTIFY_SOCKET", None)
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Python's own handler would raise, and lose it, in the hooks that run at a fork.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    children: dict[int, int] = {}
    gc.freeze()
    link.send(b'{"ready": true}')
    while True:
        ready, _, _ = select.select([link.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(link, children)
        if link.fileno() in ready:
            text, files, _, _ = socket.recv_fds(link, _LONGEST, 2)
            if not text:  # the harness is gone: nothing may stay behind
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return
            request = json.loads(text)
            pid = os.fork()
            if not pid:
                _child(request, link, files, (wake, waker))
            children[pid] = request["run"]
            for file in files:
                os.close(file)
            link.send(json.dumps({"run": request["run"], "pid": pid}).encode())


def _child(
    request: dict[str, Any],
    link: socket.socket,
    files: list[int],
    pipe: tuple[int, int],
) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        link.close()
        for file, target in zip(files, (1, 2), strict=True):
            os.dup2(file, target)
        for file in *files, *pipe:
            os.close(file)
        random.seed()  # else all of them would jitter alike
        become(request)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def _reap(link: socket.socket, children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if not pid:
            return
        told: dict[str, Any] = {"run": children[pid], "at": now()}
        if os.WIFSTOPPED(status):
            told["stopped"] = True
        else:
            told["code"] = os.waitstatus_to_exitcode(status)
            del children[pid]
        link.send(json.dumps(told).encode())


# --- the harness's side ---------------------------------------------------------------


@dataclass(eq=False)
class Command:
    """One running command of the CLI."""

    run: int
    pid: int = 0
    code: int | None = None
    ended_at: float = 0.0
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    on_stopped: Callable[[], None] = lambda: None
    streams: tuple[int, int] = (-1, -1)
    stdout: str = ""
    stderr: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; tell whether there was still a process to send it to."""
        with self._lock:  # the pid cannot be another's while the end is not told
            if self.ended.is_set() or not self.pid:
                return False
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return False
            return True

    def wait(self, seconds: float | None = None) -> bool:
        return self.ended.wait(seconds)

    def finish(self, code: int, at: float) -> None:
        with self._lock:
            texts = []
            for stream in self.streams:
                size = os.fstat(stream).st_size
                texts.append(os.pread(stream, size, 0).decode(errors="replace"))
                os.close(stream)
            self.stdout, self.stderr = texts
            nonces = []
            for line in self.stderr.splitlines():
                if line.startswith(MARK):
                    told = json.loads(line.removeprefix(MARK))
                    nonces += [told["nonce"]] if "nonce" in told else []
                    self.told |= told
            self.told["nonces"] = nonces
            self.told.pop("nonce", None)
            self.code, self.ended_at = code, at
            self.ended.set()


class Launcher:
    """Starts commands through a fork server of its own; closing it ends them all."""

    def __init__(self, waiter_ttl: float | None = None, bug: str | None = None) -> None:
        self.waiter_ttl, self.bug = waiter_ttl, bug
        self._commands: dict[int, Command] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        kind = socket.SOCK_SEQPACKET
        self._link, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            self._server = subprocess.Popen(
                [*(sys.executable, "-m", __name__), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("SERVICE_MONITOR_", "ETCDCTL_"))
                },
            )
        if not self._link.recv(_LONGEST):
            raise RuntimeError("the fork server does not start")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not only closed: the reader still holds the socket.
        self._link.shutdown(socket.SHUT_RDWR)
        self._server.wait()
        self._reader.join()
        self._link.close()

    def start(
        self,
        argv: Sequence[str],
        run: int,
        stop_at: str | None = None,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> Command:
        """Start a command of the CLI; returns when it has a pid."""
        streams = os.memfd_create("stdout"), os.memfd_create("stderr")
        command = Command(run, streams=streams, on_stopped=on_stopped)
        request = {
            "run": run,
            "argv": list(argv),
            "waiter_ttl": self.waiter_ttl,
            "bug": self.bug,
            "stop_at": stop_at,
        }
        with self._lock:
            self._commands[run] = command
            socket.send_fds(self._link, [json.dumps(request).encode()], streams)
        command.started.wait()
        if not command.pid:
            raise RuntimeError("the fork server is gone")
        return command

    def _read(self) -> None:
        while text := self._link.recv(_LONGEST):
            told = json.loads(text)
            command = self._commands[told["run"]]
            if "pid" in told:
                command.pid = told["pid"]
                command.started.set()
            elif "stopped" in told:
                command.on_stopped()
            else:
                del self._commands[told["run"]]
                command.finish(told["code"], told["at"])
        for command in self._commands.values():
            command.finish(-signal.SIGKILL, now())
            command.started.set()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

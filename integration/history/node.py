"""One node that lives and dies as drawn for it: the real commands, one at a time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from integration.history.launcher import Command
from integration.history.lives import HANG, Life, lives
from integration.history.store_faults import CALL_HANGS

if TYPE_CHECKING:
    from integration.history.rig import Rig

EXPECTED = {0, 1, 69, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


def turned(url: str, by: int) -> str:
    """Let a store's URL begin with another one of its hosts."""
    scheme, _, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    names = hosts.split(",")
    by %= len(names)
    return f"{scheme}://{','.join(names[by:] + names[:by])}{slash}{path}"


class Node:
    """One machine: a thread that lives the lives drawn for it."""

    def __init__(self, rig: Rig, label: int, number: int) -> None:
        self.rig = rig
        self.label = f"l{label}"
        self.name = f"n{number}"
        self.number = number
        self.path = f"{self.label}/{self.name}"
        self.watch: Command | None = None
        self._lives = lives(rig.settings, label, number)
        self.thread = threading.Thread(target=self._run, name=self.path, daemon=True)

    def _run(self) -> None:
        for life in self._lives:
            if self.rig.over.is_set():
                return
            try:
                self._live(life)
            except Exception as error:
                self.rig.record("error", self.label, self.name, what=repr(error))
                if not self.rig.over.is_set():
                    raise

    def _live(self, life: Life) -> None:
        rig = self.rig
        rig.over.wait(life.rest)
        grant = self._acquire(life)
        if life.fate == "kill-waiter":
            rig.over.wait(life.away)
        if grant is None or rig.over.is_set():
            return
        self._hosts(grant)
        if life.fate == "crash-loop":
            self._acquire(life)
        if life.fate == "kill-watch":
            self._end_watch(signal.SIGKILL)
        self._watch(life)
        what, _, whom = life.fate.partition("-")
        if whom == "watch" and what in ("term", "int"):
            rig.over.wait(life.delay)
            self._end_watch(signal.Signals[f"SIG{what.upper()}"], orderly=False)
            self._watch(life)
        if life.fate == "slow-probe":
            rig.services.late[self.path] = rig.settings.probe_timeout * 0.9
        rig.over.wait(
            life.lease_timeout * 1.2 if life.fate == "slow-boot" else life.boot
        )
        if life.fate == "die-booting":
            self._end_watch(signal.SIGKILL, of="a holder")
            rig.over.wait(life.away)
            return
        if life.fate == "release-by-hand":
            self._release(grant)
        elif life.fate == "pause-watch" and self.watch:
            self._pause(self.watch, life)
        self._healthy(True)
        self._await_release(grant, life)
        rig.services.late.pop(self.path, None)
        rig.over.wait(life.up)
        self._healthy(False)
        if not life.keeps_watch:
            self._end_watch(signal.SIGTERM)

    def _start(
        self, kind: str, argv: Sequence[str], where: str | None = None, **data: Any
    ) -> Command:
        rig = self.rig
        run = rig.record.number()

        def stopped() -> None:
            """The process has stopped itself: let it go on later."""
            if where:
                told: dict[str, Any] = {"run": run, "label": self.label}
                told |= {"node": self.name, "ttls": data["ttls"]}
                number = rig.record.fault("pause", "process", where=where, **told)
                rig.pausing(number)
                rig.later(data["lasting"], lambda: rig.go_on(command, number))

        rig.record(kind, self.label, self.name, run, **data)
        # Else all would meet one member first, and nobody the faults of the others.
        store = turned(rig.settings.store, self.number)
        options = ("--store", store, "--label", self.label)
        command = rig.launcher.start([*argv, *options], run, where, stopped)
        rig.running.add(command)
        return command

    def _finish(self, kind: str, command: Command, **data: Any) -> None:
        if not command.wait(self.rig.settings.patience):
            self.rig.record("error", self.label, self.name, command.run, what="hangs")
            command.send(signal.SIGKILL)
            command.wait()
        self.rig.running.discard(command)
        if command.code not in EXPECTED:
            tail = command.stderr.strip().splitlines()[-3:]
            what = f"exit code {command.code}: {' '.join(tail)}"
            self.rig.record("error", self.label, self.name, command.run, what=what)
        self.rig.record(
            kind,
            self.label,
            self.name,
            command.run,
            at=command.ended_at,
            code=command.code,
            **command.told,
            **data,
        )

    def _acquire(self, life: Life) -> int | None:
        """Run acquire-lease under what befalls it; give the token if it succeeds."""
        settings = self.rig.settings
        command = self._start(
            "enqueue",
            [
                *("acquire-lease", "--print-token", "--service-id", self.name),
                *("--host", f"{self.name}.example", "--slots", str(settings.slots)),
                *("--lease-timeout", f"{life.lease_timeout}s"),
            ],
            life.where if life.fate == "stop-waiter" else None,
            lease_timeout=life.lease_timeout,
            lasting=life.lasting,
            ttls=life.ttls,
        )
        what, _, whom = life.fate.partition("-")
        if whom == "waiter" and what != "stop" and not command.wait(life.delay):
            if what == "pause":
                self._pause(command, life)
            else:
                self._signal(command, what)
        self._finish_acquire(command)
        return int(command.stdout) if command.code == 0 else None

    def _finish_acquire(self, command: Command) -> None:
        command.wait(self.rig.settings.patience)
        token = command.stdout.strip()
        told = {"token": int(token)} if token.isdecimal() else {}
        self._finish("acquire", command, **told)

    def _hosts(self, grant: int) -> None:
        command = self._start("hosts-begin", ["hosts"], grant=grant)
        command.wait(HANG)
        listed = [host for host in command.stdout.strip().split(",") if host]
        names = [host.removesuffix(".example") for host in listed]
        self._finish("hosts", command, hosts=listed, grant=grant, names=len(names))

    def _watch(self, life: Life) -> None:
        """Start `watch`, unless there is one left over."""
        if self.watch and not self.watch.ended.is_set():
            return
        self._end_watch(signal.SIGTERM)
        settings = self.rig.settings
        address = f"http://127.0.0.1:{self.rig.services.port}/{self.path}"
        self.watch = self._start(
            "watch-begin",
            [
                *("watch", "--service-id", self.name, "--monitor-url", address),
                *("--host", f"{self.name}.example"),
                *("--interval", f"{settings.probe_timeout}s"),
                *("--timeout", f"{settings.probe_timeout}s"),
                *("--ttl", f"{settings.host_ttl}s"),
            ],
            "delete:before" if life.fate == "stop-watch" else None,
            lasting=life.lasting,
            ttls=life.ttls,
        )

    def _end_watch(self, number: signal.Signals, **more: Any) -> None:
        watch, self.watch = self.watch, None
        if watch:
            what = number.name.removeprefix("SIG").lower()
            self._signal(watch, what, **{"orderly": what == "term", **more})
            if what != "kill":  # if it is stopped it would never see it
                watch.send(signal.SIGCONT)
            self._finish("watch-end", watch)

    def _release(self, grant: int) -> None:
        argv = ["release-lease", "--service-id", self.name, "--token", str(grant)]
        command = self._start("release-begin", argv, token=grant)
        self._finish("release", command, token=grant)

    def _await_release(self, grant: int, life: Life) -> None:
        observer, place = self.rig.observer, (self.label, self.name)

        def gone() -> bool:
            ticket = observer.ticket(*place)
            return ticket is None or ticket.version != grant or self.rig.over.is_set()

        kind = "lost" if gone() and life.fate != "release-by-hand" else "release-seen"
        observer.wait(gone, life.lease_timeout + CALL_HANGS + 2)
        self.rig.record(kind, self.label, self.name, token=grant)

    def _healthy(self, up: bool) -> None:
        services = self.rig.services
        if up:
            self.rig.record("healthy", self.label, self.name)
            services.healthy.add(self.path)
        else:
            services.healthy.discard(self.path)
            self.rig.record("unhealthy", self.label, self.name)

    def _signal(self, command: Command, what: str, **more: Any) -> None:
        if command.ended.is_set():
            return
        told = {"run": command.run, "label": self.label, "node": self.name, **more}
        number = self.rig.record.fault(what, "process", **told)
        struck = command.send(signal.Signals[f"SIG{what.upper()}"])
        self.rig.record.mended(number, struck=struck)

    def _pause(self, command: Command, life: Life) -> None:
        told: dict[str, Any] = {"run": command.run, "label": self.label}
        told |= {"node": self.name, "ttls": life.ttls}
        number = self.rig.record.fault("pause", "process", **told)
        self.rig.pausing(number)
        struck = command.send(signal.SIGSTOP)
        if struck:
            self.rig.over.wait(life.lasting)
        self.rig.go_on(command, number, struck=struck)

    def end(self) -> None:
        """End what is left of the node."""
        self._end_watch(signal.SIGTERM)

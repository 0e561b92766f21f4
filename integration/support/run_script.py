"""Run a shell script under `run`, and see what it was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from subprocess import Popen

import psutil

from integration.support.commands import environment, started, wait_until

SHOW = 'echo "$SERVICE_MONITOR_FIRST ${SERVICE_MONITOR_HOSTS-unset}" >&2; '
HELD = "es/lease/es-1"
UP = "es/hosts/es-1"


class RunScript:
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


def left_by(sound: RunScript) -> list[psutil.Process]:
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

"""Collect the orphans that become ours, and nobody else's children."""

from __future__ import annotations

import os
import signal

_OWN_THREAD = 0x20000000
"""__WNOTHREAD of linux/wait.h, which `os` does not name: not of other threads."""


def collect_orphans() -> None:
    """Collect each orphan that ends, from now on; to be called by the main thread.

    The kernel gives orphans to the main thread of PID 1 (or of a subreaper), and it has
    what a script started before it became us by `exec`. A child that a library or `run`
    started belongs to the thread that started it, and its exit to the code that waits
    for it. So the main thread collects its own, and starts none.
    """
    signal.signal(signal.SIGCHLD, lambda *_: _collect())
    signal.siginterrupt(signal.SIGCHLD, False)
    _collect()


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG | _OWN_THREAD)[0]:
            pass
    except ChildProcessError:
        pass  # there are none

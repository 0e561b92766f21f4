"""Collect the orphans that become ours, and nobody else's children."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

_OWN_THREAD = 0x20000000
"""__WNOTHREAD of linux/wait.h, which `os` does not name: not of other threads."""


def collect_orphans() -> NoReturn:
    """Collect each orphan that ends; never returns, and is for the main thread.

    The kernel gives orphans to the main thread of PID 1 (or of a subreaper), and it has
    what a script started before it became us by `exec`. A child that a library or `run`
    started belongs to the thread that started it, and its exit to the code that waits
    for it. So the main thread collects its own, and starts none.
    """
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(woken, True)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)  # a pause() could miss one
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.siginterrupt(signal.SIGCHLD, False)
    while True:
        _collect()
        os.read(woken, 4096)


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG | _OWN_THREAD)[0]:
            pass
    except ChildProcessError:
        pass  # there are none

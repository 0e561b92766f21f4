"""Tell what this machine lacks (threads, files, memory) from what others do wrong.

Libraries wrap it in errors of connections, and some forget it: a resolver without a
file to open says that the name is not known. So where the cause does not say it, the
files that are left are counted.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextvars import copy_context

from service_monitor.errors import LocalLack, causes

_NO_THREAD = "can't start new thread"  # Python's RuntimeError, whatever the system said

_PROCESSES = (
    "threads or processes: raise TasksMax= (systemd), --pids-limit (containers) or "
    "`ulimit -u`"
)
_FILES = (
    "open files: raise LimitNOFILE= (systemd), --ulimit=nofile= (containers) or "
    "`ulimit -n`"
)
_MEMORY = "memory: raise MemoryMax= (systemd), --memory (containers) or `ulimit -v`"
_LACKS = {
    errno.EAGAIN: _PROCESSES,
    errno.EMFILE: _FILES,
    errno.ENFILE: "open files, all processes together: raise the sysctl fs.file-max",
    errno.ENOBUFS: _MEMORY,
    errno.ENOMEM: _MEMORY,
}
_MARGIN = 4
"""Files that a call may need at once: SQLite's three, or a resolver's two."""


def start_thread(function: Callable[[], None]) -> None:
    """Run it in a thread of its own, which does not keep the process from ending.

    The thread inherits what bounds the calls of the one that starts it. Raises
    `LocalLack` at the limit of threads and processes.
    """
    run = copy_context().run
    try:
        threading.Thread(target=run, args=(function,), daemon=True).start()
    except RuntimeError as error:
        raise _no_thread() from error


def _no_thread() -> LocalLack:
    return LocalLack(f"this machine lacks {_PROCESSES}")


def lack_in(error: BaseException, *, unclear: bool = False) -> LocalLack | None:
    """Return what this machine lacks if that caused the error, whatever wraps it.

    A resolver that fails, or an `unclear` error, may come of a lack of files without
    saying so. Then a few files are opened, to see whether there are any left.
    """
    for cause in causes(error):
        if isinstance(cause, LocalLack):
            return cause
        if isinstance(cause, MemoryError):
            return LocalLack(f"this machine lacks {_MEMORY}")
        if isinstance(cause, RuntimeError) and str(cause) == _NO_THREAD:
            return _no_thread()
        if isinstance(cause, OSError) and cause.errno in _LACKS:
            return LocalLack(f"this machine lacks {_LACKS[cause.errno]}")
        unclear = unclear or isinstance(cause, (socket.gaierror, ImportError))
    number = _files_lack() if unclear else None
    return LocalLack(f"this machine lacks {_LACKS[number]}") if number else None


def _files_lack() -> int | None:
    """Return why a few more files cannot be opened, if so."""
    opened = []
    try:
        for _ in range(_MARGIN):
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno if error.errno in _LACKS else None
    finally:
        for file in opened:
            os.close(file)
    return None

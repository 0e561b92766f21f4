"""How the process ends where it cannot even start: one line, and exit 70.

Exit code 1 means "not acquired", and is Python's own for whatever goes wrong. Nothing
here needs more than what the interpreter has loaded by itself: not even `__future__`,
which is a file to be found like any other.
"""

import io
import os
import sys

from service_monitor.node.leaving import leave

TYPE_CHECKING = False  # `typing` is slow, and may be what is broken
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

BROKEN = 70
"""Exit code for a fault of ours or of the installation; sysexits.h EX_SOFTWARE."""


def guarded(main: "Callable[[], None]") -> "Callable[[], None]":
    """Let nothing that `main` raises pass for an answer: end with exit code 70."""

    def run() -> None:
        if sys.stdout is None:
            sys.stdout = _Closed()
        try:
            main()
        except BaseException as error:
            leave(report(error))

    return run


class _Closed(io.TextIOBase):
    """A stdout that was closed: what is written to it must not get lost unheard."""

    def write(self, _: str) -> "NoReturn":
        raise OSError("stdout is closed")


def report(error: BaseException) -> int:
    """Say in one line on stderr what went wrong and where; return the exit code.

    A fault of ours has its traceback before that, for whoever is to mend it. What this
    machine lacks has its own exit code, if there was a file left to tell it by.
    """
    lacks = sys.modules.get("service_monitor.net.lacks")
    lack = lacks.lack_in(error) if lacks else None
    if not lack and _is_ours(error):
        sys.excepthook(type(error), error, error.__traceback__)
    text = str(lack) if lack else _line(error)
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"service-monitor: {line[:1000]}\n")
            sys.stderr.flush()
        except OSError:  # full or gone: the exit code is all that is left
            pass
    return lack.exit_code if lack else BROKEN


def _is_ours(error: BaseException) -> bool:
    """Tell a mistake of this program from what kept it from being loaded."""
    if "service_monitor.cli.app" not in sys.modules:
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            return False  # it was met in an import
        trace = trace.tb_next
    return not isinstance(error, (ImportError, SyntaxError))


def _line(error: BaseException) -> str:
    kind, place = type(error).__name__, _place(error)
    if _is_ours(error):
        return f"a fault of ours: {kind} in {place}: please report the lines above"
    path = os.environ.get("PYTHONPATH")
    if path and not sys.flags.ignore_environment:
        remedy = f"is something in PYTHONPATH={path} in the way? Leave it out"
    else:
        remedy = "is the installation whole? Install it anew"
    return f"cannot start: {kind}: {str(error)[:300]} in {place}: {remedy}"


def _place(error: BaseException) -> str:
    """Return the file and line that it came from."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"

"""Print the traceback of a mistake of ours, without secrets."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from service_monitor.text import masked


def _print(
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    import traceback  # slow, and hardly ever needed

    if sys.stderr is not None:
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(masked(text))
        sys.stderr.flush()


def mask_crashes() -> None:
    """Let the tracebacks of all threads, which may quote a request, pass the mask."""
    sys.excepthook = _print
    threading.excepthook = lambda args: _print(
        args.exc_type, args.exc_value, args.exc_traceback
    )

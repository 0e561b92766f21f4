"""The process: signals become a stop request before anything slow is imported."""

from __future__ import annotations

import os
import sys

from service_monitor.node import signals

TYPE_CHECKING = False  # `typing` is slow, too
if TYPE_CHECKING:
    from service_monitor.calls import Stop


def main() -> None:
    """Run the command line and exit.

    It runs in a thread of its own, and another takes the signals. The main thread only
    collects orphans, which goes on whatever the command is busy with.
    """
    heeded = signals.block()
    import threading

    from service_monitor.calls import Stop
    from service_monitor.node.reaper import collect_orphans

    stop = Stop()
    threading.Thread(target=signals.obey, args=(stop, heeded), daemon=True).start()
    threading.Thread(target=_command, args=(stop,), daemon=True).start()
    collect_orphans()


def _command(stop: Stop) -> None:
    code = 1  # Python's own for a fault of ours
    try:
        code = _run(stop)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)  # a thread may hang in a resolver that nothing interrupts


def _run(stop: Stop) -> int:
    import io
    from contextlib import suppress

    from service_monitor.cli import main as run  # slow

    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")
    code = run(stop=stop)
    if sys.stderr is not None:
        with suppress(OSError):  # full or gone: that must not change the exit code
            sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()

"""The process: signals become a stop request before anything slow is imported."""

import sys

from service_monitor.cli.startup import BROKEN, guarded, report
from service_monitor.node.leaving import leave

try:
    from service_monitor.node import signals
except BaseException as error:  # a module of that name, or of one it needs, is found
    leave(report(error))

TYPE_CHECKING = False  # `typing` is slow, too
if TYPE_CHECKING:
    from service_monitor.net.stop import Stop
    from service_monitor.node.ending import Ending


@guarded
def main() -> None:
    """Run the command line and exit.

    It runs in a thread of its own, and another takes the signals. The main thread only
    collects orphans, which goes on whatever the command is busy with.
    """
    heeded = signals.block()
    import threading
    import warnings
    from functools import partial

    from service_monitor.cli.crash import mask_crashes
    from service_monitor.net.stop import Stop
    from service_monitor.node.ending import Ending
    from service_monitor.node.reaper import collect_orphans

    mask_crashes()
    if not sys.warnoptions:  # a library's are no lines of our log
        warnings.simplefilter("ignore")
    stop, ending = Stop(), Ending(leave)
    obey = partial(signals.obey, stop, ending, heeded)
    try:
        for part in obey, partial(_command, stop, ending):
            threading.Thread(target=part, daemon=True).start()
    except RuntimeError as error:  # nothing works without
        leave(report(error))
    collect_orphans()


def _command(stop: "Stop", ending: "Ending") -> None:
    code = BROKEN
    try:
        code = _run(stop, ending)
    except BaseException as error:
        code = report(error)
    finally:
        leave(code)


def _run(stop: "Stop", ending: "Ending") -> int:
    import io
    from contextlib import suppress

    from service_monitor.cli.app import main as run  # slow

    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")
    code = run(stop=stop, ending=ending)
    if sys.stderr is not None:
        with suppress(OSError):  # full or gone: that must not change the exit code
            sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()

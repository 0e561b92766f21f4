"""The process: signals become a stop request before anything slow is imported."""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` is slow, too
if TYPE_CHECKING:
    from service_monitor.calls import Stop

_ENDING = {signal.SIGTERM, signal.SIGINT}


def main() -> None:
    """Run the command line and exit.

    The signals are blocked and taken by a thread, so none can strike between two lines
    of the code that cleans up, and they work for PID 1, which has no default actions.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    import io
    import threading
    from contextlib import suppress

    from service_monitor.calls import Stop
    from service_monitor.crash import mask_crashes

    mask_crashes()
    stop = Stop()
    try:
        threading.Thread(target=_obey, args=(stop,), daemon=True).start()
    except RuntimeError:  # nothing works without
        from service_monitor.lacks import no_thread

        lack = no_thread()
        print(f"service-monitor: {lack}", file=sys.stderr, flush=True)
        os._exit(lack.exit_code)
    from service_monitor.cli import main as run  # slow

    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            stream.reconfigure(errors="backslashreplace")
    code = run(stop=stop)
    if sys.stderr is not None:
        with suppress(OSError):  # full or gone: that must not change the exit code
            sys.stderr.flush()
    os._exit(code)  # at once: a thread may hang in a resolver that nothing interrupts


def _obey(stop: Stop) -> None:
    """Pass the signals on; end the process if after the first that takes too long."""
    received = signal.sigwait(_ENDING)
    stop.request(received)
    # That long it takes only for what is not ours: a full pipe, a disk.
    begun = time.monotonic()
    while (left := begun + stop.patience - time.monotonic()) > 0:
        if again := signal.sigtimedwait(_ENDING, left):
            stop.request(again.si_signo)
    stop.last_act()
    os._exit(128 + received)


if __name__ == "__main__":
    main()

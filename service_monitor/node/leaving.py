"""End this process at once, with no import and no clean-up."""

import _thread
import os

TYPE_CHECKING = False  # `typing` is slow, and may be what is broken
if TYPE_CHECKING:
    from typing import NoReturn

_leaving = _thread.allocate_lock()


def leave(code: int) -> "NoReturn":
    """End the process at once, as another thread may hang in what nothing interrupts.

    Nothing is flushed or cleaned up. Of two threads that call it the first one counts.
    """
    with _leaving:
        os._exit(code)

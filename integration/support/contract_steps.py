"""What several tests of the stores' contract do: wait for an end, and for a change."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

from integration.support.commands import HANG
from service_monitor.stores.base import Store
from service_monitor.timing import now


def new_key(label: str) -> str:
    """Give a key of its own to each try of a scene; see `pauses`."""
    return f"{label}/{uuid.uuid4().hex}"


def gone_within(store: Store, key: str, seconds: float) -> bool:
    """Tell whether the record under `key` ends in so many seconds."""
    deadline = now() + seconds
    while now() < deadline:
        if not store.list(key).records:
            return True
        time.sleep(0.05)
    return False


WOKEN = HANG / 2
"""Seconds that a wait lasts at the most if a change ends it."""


def waited(
    make_store: Callable[..., Store],
    prefix: str,
    change: Callable[[Store], object],
    timeout: float = HANG,
    *,
    gone: bool = False,
) -> float:
    """Change something during a wait; return the seconds that it lasted.

    The default is long: on a busy machine the change itself comes late.
    """
    store, other = make_store(), make_store()
    snapshot, ended = other.list(prefix), list[float]()

    def wait() -> None:
        other.wait(prefix, snapshot, timeout, gone=gone)
        ended.append(now())

    begun = now()
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    change(store)
    thread.join(2 * HANG)
    assert ended, "the wait hangs"
    return ended[0] - begun

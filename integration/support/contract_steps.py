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


def wakes(
    make_store: Callable[..., Store],
    prefix: str,
    change: Callable[[Store], object],
    *,
    gone: bool = False,
) -> bool:
    """Tell whether a wait that is under way is ended by the change, not by time."""
    store, other = make_store(), make_store()
    snapshot = other.list(prefix)
    ended: list[float] = []

    def wait() -> None:
        other.wait(prefix, snapshot, 3.0, gone=gone)
        ended.append(now())

    begun = now()
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    change(store)
    thread.join(HANG)
    assert ended, "the wait hangs"
    return ended[0] - begun < 2.5

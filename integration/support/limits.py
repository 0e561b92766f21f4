"""A process at the limits of its machine."""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_files_left(spare: int = 0) -> Iterator[None]:
    """Let this process open no more files than `spare`."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what an earlier test forgot would free a file just then
    free = os.dup(0)  # the lowest number that is free
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def use_up_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread be started."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)

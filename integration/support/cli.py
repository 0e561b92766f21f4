"""The CLI as a process: its command line, its environment, and how it ended."""

from __future__ import annotations

import os
import signal
import sys

CLI = (sys.executable, "-m", "service_monitor")


def environment() -> dict[str, str]:
    """Give the environment without settings that would change what the CLI does."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_MONITOR_")}


def ending(code: int) -> str:
    """Say how a process ended."""
    return (
        f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    )

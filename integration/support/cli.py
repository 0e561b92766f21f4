"""The CLI as a process: its command line, its environment, and how it ended."""

from __future__ import annotations

import os
import signal
import sys

CLI = (sys.executable, "-m", "service_monitor")
"""What comes before a command's name."""
SETTINGS = ("SERVICE_MONITOR_", "ETCDCTL_")


def clean_environment(**more: str) -> dict[str, str]:
    """Give the environment without settings that would change what the CLI does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
    return kept | more


def ending(code: int) -> str:
    """Say how a process ended."""
    return (
        f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    )

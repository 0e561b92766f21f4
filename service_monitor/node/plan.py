"""What `run` starts and how it ends that, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What to start and how to end it; times in seconds."""

    command: tuple[str, ...]
    """COMMAND and its arguments."""
    acquire_timeout: float
    """How long the turn is waited for."""
    start_anyway: bool
    """Whether to start without the lease where the turn does not come in time."""
    stop_if_lost: bool | None
    """Whether to stop if the lease goes too early; None: if it is to found the
    cluster."""
    stop_timeout: float
    """How long it may take to stop, before it is killed."""
    drain: float
    """How long it goes on after it is deregistered and before it is stopped."""
    stop_alone: bool = False
    """Whether signals are for the command only, and not for all that it started."""

"""Who is told how a wait goes, as far as the recipes know it."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Takes signs of life of a wait; never blocks and never raises."""

    def queued(self, text: str) -> None:
        """Take note that it waits, and why."""
        ...

    def passing(self) -> None:
        """Take note that a look of several calls goes on."""
        ...


class Silent:
    """Tells nobody."""

    def queued(self, text: str) -> None:
        """Do nothing."""

    def passing(self) -> None:
        """Do nothing."""

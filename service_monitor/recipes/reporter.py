"""The protocol of what is told how a wait goes: recipes know no notifier."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Takes reports of a wait; never blocks and never raises."""

    def queued(self, text: str) -> None:
        """Take note that the wait goes on, and why: one line of text."""
        ...

    def passing(self) -> None:
        """Take note that a look at the store goes on, between two of its calls."""
        ...


class Silent:
    """Reports to nobody."""

    def queued(self, text: str) -> None:
        """Do nothing."""

    def passing(self) -> None:
        """Do nothing."""

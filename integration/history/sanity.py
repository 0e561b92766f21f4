"""What a run may show in which nothing is wrong."""

from __future__ import annotations

from integration.history.rules import Violation
from integration.history.run import Outcome

TIMED = {"wakeup", "takeover", "place", "clean_exit"}


def sane(outcome: Outcome) -> list[Violation]:
    """Give the violations of a run in which something happened at all.

    A machine that others load makes a few of the rules about time; more is a bug.
    """
    assert outcome.acquisitions > 3
    assert not outcome.errors
    assert outcome.faults["process"].total()
    timed = [v for v in outcome.violations if v.rule in TIMED]
    return list(outcome.violations) if timed != outcome.violations else timed[3:]

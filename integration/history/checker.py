"""Judge a history: events of the workers and the store's own log in, violations out.

No I/O and no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

from integration.history.recorder import Change, Event
from integration.history.relations import History, Rules
from integration.history.rules import RULES, Violation


def check(
    events: Iterable[Event], changes: Sequence[Change], rules: Rules
) -> list[Violation]:
    """Return every violation, the earliest first."""
    history = History(events, changes, rules)
    found = [violation for rule in RULES for violation in rule(history)]
    return sorted(found, key=lambda violation: violation.at)


def verdict(
    violations: Sequence[Violation],
    events: Iterable[Event],
    changes: Iterable[Change],
    around: int = 6,
) -> str:
    """Name the first bad event with what happened before and after it, for people."""
    if not violations:
        return "no violations"
    first = violations[0]
    label = first.item.label if first.item else ""
    items: list[Event | Change] = [*events, *changes]
    told = sorted(
        (
            item
            for item in items
            if item.label in (label, "") and not _is_noise(item, first)
        ),
        key=lambda item: item.at,
    )
    middle = bisect_left([item.at for item in told], first.at)
    if first.item in told:
        middle = told.index(first.item)
    lines = [str(first), ""]
    for n in range(max(0, middle - around), min(len(told), middle + around + 1)):
        mark = ">" if n == middle else " "
        lines.append(f"{mark} {told[n].at - first.at:+9.3f} s  {told[n]}")
    if len(violations) > 1:
        counts = Counter(violation.rule for violation in violations)
        listed = ", ".join(f"{rule} {n}" for rule, n in counts.most_common())
        lines += ["", f"{len(violations)} violations in all: {listed}"]
    return "\n".join(lines)


def _is_noise(item: Event | Change, first: Violation) -> bool:
    return isinstance(item, Event) and item.kind == "probe" and item is not first.item

"""The history checker says what a test can rely on."""

from __future__ import annotations

from pathlib import Path

from integration.history.checker import check, verdict
from integration.history.recorder import (
    Change,
    Recorder,
    read_changes,
    read_events,
    write_lines,
)
from integration.history.relations import Rules
from integration.history.rules import RULES
from integration.support.stories import TTL, Story, two_nodes


def test_what_is_right_passes() -> None:
    """Else every run would be red, and soon nobody would look."""
    assert two_nodes().broken() == set()


def test_a_gap_in_the_log_proves_nothing() -> None:
    """Else a compaction that the observer missed would look like broken promises."""
    story = Story()
    story.grant("a")
    story.later(1)
    gap = Change(story.at - 1, story.at, "", "gap", "", 0, 0, None)
    story.changes.append(gap)
    story.put("c", "waiting", "nobody", seen=False)
    story.put("b", "held", "nobody", seen=False)
    assert story.broken() == set()


def test_the_verdict_shows_the_surroundings() -> None:
    """Else somebody would have to look for the first bad event by hand."""
    story = two_nodes()
    story.later(1).put("c", "waiting")
    story.later(1).put("d", "waiting")
    story.put("d", "held")
    found = check(story.events, story.changes, Rules(waiter_ttl=TTL))
    told = verdict(found, story.events, story.changes)
    assert told.startswith("order: d was granted the lease before c")
    (line,) = (line for line in told.splitlines() if line.startswith(">"))
    assert "es/d" in line
    assert "STORE lease held" in line
    assert "es/c" in told
    assert verdict([], story.events, story.changes) == "no violations"


def test_every_rule_has_a_bad_history_here() -> None:
    """Else a rule could be added that nothing shows to work."""
    pages = Path(__file__).parent.glob("test_checker*.py")
    text = "".join(page.read_text() for page in pages)
    for rule in RULES:
        assert f'"{rule.__name__}"' in text, rule


def test_histories_are_kept_as_lines(tmp_path: Path) -> None:
    """Else a history could not be judged again, or by somebody else."""
    record = Recorder(tmp_path / "events")
    number = record.fault("kill", "process", run=3)
    record.mended(number)
    record.close()
    assert read_events(tmp_path / "events") == record.events
    changes = two_nodes().changes
    write_lines(tmp_path / "changes", changes)
    assert read_changes(tmp_path / "changes") == changes

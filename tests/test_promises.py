"""Each promise of the README is held by tests, and the documents say by which."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from integration.history.rules import RULES
from integration.support.documents import README, ROOT, anchors, sections

PAGE = ROOT / "docs/promises.md"
NUMBERS = range(1, 10)
CHECKER = "integration/history/rules.py"


@functools.cache
def marked() -> set[tuple[int, str, str]]:
    """Find the tests that carry the marker: promise, file, name."""
    found = set()
    for path in [p for d in ("tests", "integration") for p in (ROOT / d).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == (
                        "pytest.mark.promise"
                    ):
                        where = str(path.relative_to(ROOT)), node.name
                        found |= {(ast.literal_eval(n), *where) for n in mark.args}
    return found


@functools.cache
def named() -> set[tuple[int, str, str]]:
    """Find the tests and rules that the page names: promise, file, name."""
    found = set()
    for heading, body in sections(PAGE.read_text()).items():
        for item in re.split(r"\n- ", body)[1:]:
            if link := re.match(r"\[([\w/.]+)\]\(\.\./\1\)", item):
                for name in re.findall(r"`(\w+)`", item):
                    found.add((int(heading[0]), link[1], name))
    return found


def test_readme_makes_the_nine_promises() -> None:
    """Users would rely on words that no test holds."""
    readme = " ".join(sections(README.read_text())["Promises"].split())
    headings = sections(PAGE.read_text())
    assert [heading[:2] for heading in headings] == [f"{n}." for n in NUMBERS]
    links = re.findall(r"\[Tests\]\(docs/promises\.md#([\w-]+)\)", readme)
    for (heading, body), link in zip(headings.items(), links, strict=True):
        quote = " ".join(re.findall(r"^> ?(.*)$", body, re.MULTILINE))
        number, _, name = heading.partition(". ")
        stop = "" if number == "9" else "."
        assert " ".join(f"{number}. *{name}{stop}* {quote}".split()) in readme
        assert link.startswith(f"{number}-")
        assert link in anchors(PAGE)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_page_names_the_tests_that_hold_a_promise(number: int) -> None:
    """A promise would be words only, or its proof a name that nothing answers to."""
    here = {entry for entry in marked() if entry[0] == number}
    assert here
    there = {e for e in named() if e[0] == number and e[1] != CHECKER}
    assert there == here


def test_only_promises_that_are_made_are_held() -> None:
    """A slip of a number would leave a promise without the test it needs."""
    assert {number for number, *_ in marked()} == set(NUMBERS)


def test_the_page_names_every_rule_of_the_checker() -> None:
    """A rule that is gone would still be taken for a proof."""
    rules = {name for _, path, name in named() if path == CHECKER}
    assert rules == {rule.__name__ for rule in RULES}

"""The house: where each thing stands, as docs/development.md shows it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "service_monitor"
PAGE = ROOT / "docs/development.md"
ROOMS = ("cli", "node", "recipes", "stores", "net")
"""From the top floor down; at the root is what all of them stand on."""
LONGEST = 250
LONGEST_OF_TESTS = 400


def first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def rows(folder: Path, depth: int) -> Iterator[tuple[str, str]]:
    indent = "    " * depth
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}{path.name}", first_sentence(path)
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            yield f"{indent}{path.name}/", first_sentence(path / "__init__.py")
            yield from rows(path, depth + 1)


def tree() -> str:
    """Draw it: each file with the first sentence of its docstring."""
    drawn: list[tuple[str, str]] = []
    for name in ROOMS:
        drawn.append((f"{name}/", first_sentence(PACKAGE / name / "__init__.py")))
        drawn += rows(PACKAGE / name, 1)
    at_root = sorted(PACKAGE.glob("*.py"))
    drawn += [(p.name, first_sentence(p)) for p in at_root if p.name != "__init__.py"]
    width = max(len(name) for name, _ in drawn)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in drawn)


def test_the_tree_is_as_the_page_shows_it() -> None:
    """A newcomer would look for a thing where it no longer is."""
    shown = PAGE.read_text().partition("```text\n")[2].partition("\n```")[0]
    assert shown == tree(), f"docs/development.md should show:\n{tree()}"


def test_there_are_no_other_rooms() -> None:
    """A drawer for odds and ends would fill up."""
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there == set(ROOMS)
    names = {path.stem for path in PACKAGE.glob("*.py")}
    own = {"__init__", "__main__"}
    assert names - own == {"records", "errors", "timing", "text"}


def longer(root: Path, folders: Iterable[Path], limit: int) -> dict[str, int]:
    """Give the lines of each file that has more than `limit`."""
    return {
        str(path.relative_to(root)): lines
        for folder in folders
        for path in folder.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > limit
    }


def test_no_file_outgrows_its_room() -> None:
    """Nobody reads a file of a thousand lines before changing it."""
    assert longer(PACKAGE, [PACKAGE], LONGEST) == {}


def test_no_file_of_tests_has_more_than_one_subject() -> None:
    """Nobody finds the test of a rule among eight hundred lines."""
    assert longer(ROOT, [ROOT / "tests", ROOT / "integration"], LONGEST_OF_TESTS) == {}


def test_no_module_of_tests_imports_another() -> None:
    """A test that moves would take others along: what they share is in support."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.module if isinstance(node, ast.ImportFrom) else ""
            assert not (name or "").startswith("tests"), path.name

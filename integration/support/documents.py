"""The documents of this repository, and how a test reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click

from service_monitor.cli.app import cli

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    [README, ROOT / "CHANGELOG.md"]
    + [p for d in ("docs", "examples") for p in (ROOT / d).rglob("*.md")]
)
SCRIPTS = sorted(p for p in (ROOT / "examples").rglob("*") if p.is_file())


def plain(text: str) -> str:
    """Undo Markdown: links to their text, no code marks, one blank between words."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(text.replace("`", "").split())


def sections(text: str, mark: str = "## ") -> dict[str, str]:
    """Split a page at its headings of one level."""
    parts = re.split(rf"^{re.escape(mark)}(.+)$", text, flags=re.MULTILINE)
    return {h.strip(): body for h, body in zip(parts[1::2], parts[2::2], strict=True)}


def rows(text: str) -> list[list[str]]:
    """Give the cells of the tables in a text, without their heads."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        head = number + 1 < len(lines) and lines[number + 1].startswith("|--")
        if line.startswith("|") and not line.startswith("|--") and not head:
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


class Row(NamedTuple):
    """An option as the documents have it."""

    names: set[str]
    default: str
    twin: str


def real(command: str) -> list[Row]:
    return [
        Row(set(option.opts), default_of(option), str(option.envvar))
        for option in cli.commands[command].params
        if isinstance(option, click.Option)
    ]


def default_of(option: click.Option) -> str:
    """Say an option's default in the words of the documents."""
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag:
        return "off"
    return f"`{option.default}`" if option.show_default else "none"


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", plain(heading).lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}

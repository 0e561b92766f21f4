"""The documents say what the program does, and nothing that it no longer does."""

from __future__ import annotations

import ast
import functools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from integration.support.documents import (
    PAGES,
    README,
    ROOT,
    SCRIPTS,
    Row,
    anchors,
    plain,
    real,
    rows,
    sections,
)
from service_monitor.cli.app import cli
from service_monitor.cli.command_help import Command
from service_monitor.cli.twins import Twin
from service_monitor.node import joining
from service_monitor.timing import parse_duration

COMMANDS_PAGE = ROOT / "docs/commands.md"
COMMANDS = {n: c for n, c in cli.commands.items() if isinstance(c, Command)}
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q tox && .venv/bin/tox"
TWO_COMMANDS = [f"{SET_UP} -q -e simulate", SET_UP]


# commands.md


def documented(command: str) -> list[Row]:
    body = sections(COMMANDS_PAGE.read_text()).get(f"`{command}`", "")
    return [
        Row(set(re.findall(r"--[a-z-]+", cells[0])), cells[1], plain(cells[2]))
        for cells in rows(body)
        if cells[0].startswith("`--")
    ]


def test_every_command_is_documented() -> None:
    """A user would learn of a command only from --help."""
    headings = re.findall(r"^## `([a-z-]+)`$", COMMANDS_PAGE.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(cli.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    """A user would not know of an option, an alias or an environment twin."""
    there = {(name, row.twin) for row in documented(command) for name in row.names}
    assert {(n, row.twin) for row in real(command) for n in row.names} - there == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_option_exists(command: str) -> None:
    """A copied command line would end with "no such option"."""
    there = {(name, row.twin) for row in real(command) for name in row.names}
    said = {(name, row.twin) for row in documented(command) for name in row.names}
    assert said - there == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_defaults_are_the_real_ones(command: str) -> None:
    """An operator would rely on a timeout that is another one."""
    said = {
        name: plain(row.default) for row in documented(command) for name in row.names
    }
    for row in real(command):
        for name in row.names & said.keys():
            assert said[name] == plain(row.default), f"{command} {name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_choice_is_documented(command: str) -> None:
    """A user would not find out about a format."""
    body = sections(COMMANDS_PAGE.read_text())[f"`{command}`"]
    for option in cli.commands[command].params:
        if isinstance(option.type, click.Choice):
            (row,) = (c for c in rows(body) if f"`{option.opts[0]}`" in c[0])
            missing = [c for c in option.type.choices if f"`{c}`" not in row[3]]
            assert not missing, f"{command} {option.opts[0]}"


@pytest.mark.parametrize("command", COMMANDS)
def test_exit_codes_are_documented(command: str) -> None:
    """A unit would take a failure for success."""
    body = sections(COMMANDS_PAGE.read_text())[f"`{command}`"]
    (said,) = re.findall(r"\*\*Exit codes:\*\* ([0-9, ]+)", body)
    codes = [int(code) for code in re.findall("[0-9]+", said)]
    assert codes == list(COMMANDS[command].exits)
    for page in (COMMANDS_PAGE, README):
        table = sections(page.read_text())["Exit codes"]
        told = {int(n) for cells in rows(table) for n in re.findall("[0-9]+", cells[0])}
        assert set(codes) <= told, page.name


# command lines anywhere


def command_lines(text: str) -> Iterator[tuple[str, str]]:
    """Find `service-monitor COMMAND OPTIONS`, also as an image's, joined over lines."""
    text = re.sub(r"\\\n\s*", " ", text)
    for match in re.finditer(
        r"service[-_]monitor`? (?P<command>[a-z]+(?:-[a-z]+)?)\b(?P<rest>[^\n`|;&)#]*)",
        text,
    ):
        yield match["command"], match["rest"]


@pytest.mark.parametrize(
    "page", PAGES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT))
)
def test_command_lines_use_real_options(page: Path) -> None:
    """A pasted line would end with "no such option"."""
    for command, rest in command_lines(page.read_text()):
        if command in cli.commands:
            known = {n for row in real(command) for n in row.names} | {"--help"}
            used = set(re.findall(r"(?<!\S)(--[a-z-]+)", rest))
            assert used <= known, f"{command}{rest}"


def test_variables_are_real() -> None:
    """A unit would set a variable that nothing reads."""
    known = {row.twin for command in COMMANDS for row in real(command)}
    options = [option for command in COMMANDS.values() for option in command.params]
    known |= {n for option in options if isinstance(option, Twin) for n in option.older}
    known |= {"SERVICE_MONITOR_COMPLETE", "SERVICE_MONITOR_TEST_DYNAMODB"}
    known |= {joining.HOSTS, joining.TOKEN, joining.FIRST, joining.MEMBERS}
    for page in PAGES + SCRIPTS:
        said = set(re.findall(r"SERVICE_MONITOR_[A-Z_]*[A-Z]", page.read_text()))
        assert said <= known, page.name


# links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    """A reader in trouble would land on a 404."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_begins_with_its_title(page: Path) -> None:
    """A slip of an editor would be the first thing that a reader sees."""
    assert page.read_text().startswith("# ")


def test_readme_opens_with_the_two_commands() -> None:
    """A newcomer would not get it running by pasting one line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.DOTALL | re.M)
    assert [block.strip() for block in blocks[:2]] == TWO_COMMANDS
    assert "\n## " not in README.read_text().partition(TWO_COMMANDS[0])[0]


# constants and messages


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (plain(cells[0]), plain(cells[1]))
        for cells in rows((ROOT / "docs/timing.md").read_text())
        if cells[0].startswith("`service_monitor.")
    ],
)
def test_documented_constants_are_the_real_ones(name: str, value: str) -> None:
    """Worst-case figures would be worked out from wrong numbers."""
    assert parse_duration(value.replace(" ", "")) == pkgutil.resolve_name(name)


HOLE = "\0"


def template(node: ast.expr) -> str | None:
    """Give a message with a hole for each thing that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sdr]", HOLE, node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (
            part.value if isinstance(part, ast.Constant) else HOLE
            for part in node.values
        )
        return "".join(map(str, parts))
    return None


def sources() -> list[ast.Module]:
    return [ast.parse(p.read_text()) for p in (ROOT / "service_monitor").rglob("*.py")]


@functools.cache
def logged() -> set[str]:
    """Collect what the code logs."""
    found = set()
    for tree in sources():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                message = node.args[1 if node.func.attr == "log" else 0]
                found.add(template(message) or "")
    return found


@functools.cache
def said() -> set[str]:
    """Collect all texts in the code."""
    nodes = (n for tree in sources() for n in ast.walk(tree) if isinstance(n, ast.expr))
    return {text for text in map(template, nodes) if text}


@functools.cache
def fillings() -> set[str]:
    """Collect what the documents may have in a hole: `...`, or a text of the code."""
    return {"..."} | {text for text in said() if re.search(r"\w\w", text)}


def matches(message: str, form: str) -> bool:
    first, *others = re.split(f"{HOLE}+", form)
    return message.startswith(first) and ends(message[len(first) :], others)


def ends(rest: str, pieces: list[str]) -> bool:
    """Tell whether a filling and a piece follow, and again, up to the end."""
    if not pieces:
        return not rest
    piece, *others = pieces
    return any(
        rest[:at] in fillings() and ends(rest[at + len(piece) :], others)
        for at in range(1, len(rest) + 1)
        if rest.startswith(piece, at)
    )


def messages(heading: str) -> list[str]:
    body = sections((ROOT / "docs/operations.md").read_text())[heading]
    return [cells[0].strip("`") for cells in rows(body)]


@pytest.mark.parametrize("message", messages("Log messages"))
def test_documented_log_messages_exist(message: str) -> None:
    """At 3 a.m. an operator would search the log for what is never logged."""
    assert any(matches(message, form) for form in logged())


def test_log_messages_are_documented() -> None:
    """At 3 a.m. an operator would find a line that no page explains."""
    known = messages("Log messages")
    missing = [f for f in logged() if not any(matches(m, f) for m in known)]
    assert not missing


@pytest.mark.parametrize("message", messages("Errors"))
def test_documented_errors_exist(message: str) -> None:
    """An operator would wait for an error that never comes."""
    forms = [form for form in said() if HOLE in form and re.search(r"\w\w", form)]
    assert any(matches(message, form) for form in forms)

"""What the commands tell about themselves."""

from __future__ import annotations

import re

import click
import pytest

from integration.support.commands import COMMANDS, Run
from service_monitor.cli.twins import Twin

EXITS = {
    "acquire-lease": (0, 1, 2, 69, 70, 71, 74, 130, 143),
    "forget": (0, 1, 2, 69, 70, 71, 74, 130, 143),
    "hosts": (0, 1, 2, 69, 70, 71, 74, 130, 143),
    "init-store": (0, 2, 69, 70, 71, 74, 130, 143),
    "release-lease": (0, 1, 2, 69, 70, 71, 74, 130, 143),
    "reset": (0, 1, 2, 69, 70, 71, 74, 130, 143),
    "run": (0, 1, 2, 69, 70, 71, 74, 126, 127, 130, 143),
    "status": (0, 2, 69, 70, 71, 74, 130, 143),
    "watch": (0, 2, 70, 71, 74),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_all_there_is_to_know(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An operator on a machine without the README would have to guess."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    for part in "Example:", "Options:", "Stores:", "Exit codes:", "Environment:":
        assert f"{part}\n" in out
    example = "--store='dynamodb://nodes?" if name == "init-store" else "--label=es"
    assert f"service-monitor {name} {example}" in out
    for number in EXITS[name]:
        assert re.search(rf"^  {number} +\S", out, re.MULTILINE)
    for scheme in (
        "etcd://",
        "etcds://",
        "etcd2://",
        "etcd2s://",
        "dynamodb://",
        "sqlite:///",
    ):
        assert scheme in out
    for variable in "ENDPOINTS", "CACERT", "CERT", "KEY", "USER", "PASSWORD":
        assert f"ETCDCTL_{variable}" in out
    assert "[default:" in out
    for param in COMMANDS[name].params:
        assert all(given in out for given in param.opts if given.startswith("--"))
        if isinstance(param, click.Option):
            assert str(param.envvar) in out
        if isinstance(param, Twin):
            assert all(older in out for older in param.older)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_has_a_whole_sentence_for_each(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A line that ends in ... tells nothing."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    assert re.search(rf"^  {name} +[A-Z].*[^.]\.$", out, re.MULTILINE)


def test_without_a_command_help_is_shown(run: Run) -> None:
    """A newcomer would get a riddle, or a script would take help for data."""
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: service-monitor [OPTIONS] COMMAND")
    assert "\n  acquire-lease  " in err


def test_the_version(run: Run) -> None:
    """Nobody could say which version a bug report is about."""
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"service-monitor, version \d+\.\d+\.\d+\S*\n", out)


def test_completion_is_offered(run: Run) -> None:
    """Tab would do nothing."""
    complete = {"_SERVICE_MONITOR_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    outcome = run(env=complete | {"COMP_WORDS": "service-monitor hosts --fo"})
    assert outcome == (0, "plain,--format\n", "")

"""Every option may come from the environment."""

from __future__ import annotations

import click
import pytest

from integration.support.certificates import Certificates
from integration.support.commands import COMMANDS, Run
from integration.support.option_values import VALUES
from service_monitor.cli import values

FLAGS = {"dry_run", "insecure", "print_token", "force"}
OPTIONS = [
    (command, option)
    for command in COMMANDS.values()
    for option in command.params
    if isinstance(option, click.Option) and option.expose_value
]


@pytest.mark.parametrize(
    ("command", "option"), OPTIONS, ids=lambda thing: getattr(thing, "name", None)
)
def test_every_option_has_a_twin_in_the_environment(
    command: click.Command,
    option: click.Option,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container or a unit could not be configured by its environment alone."""
    first = option.opts[0]
    twin = f"SERVICE_MONITOR_{first.removeprefix('--').replace('-', '_').upper()}"
    assert option.envvar == twin
    value = (VALUES | {"ca": certificates.ca}).get(str(option.name), "1")

    def parsed(*argv: str) -> object:
        context = command.make_context("x", list(argv), resilient_parsing=False)
        with context:
            return context.params[str(option.name)]

    required = [p.opts[0] for p in command.params if p.required and p is not option]
    options = [name for name in required if name.startswith("--")]
    needed = [f"{name}={VALUES[name[2:].replace('-', '_')]}" for name in options]
    rest = ["x"] if len(options) < len(required) else []
    given = [first] if option.name in FLAGS else [f"{first}={value}"]
    typed = parsed(*needed, *given, *rest)
    monkeypatch.setenv(twin, value)
    assert parsed(*needed, *rest) == typed
    if not option.required:
        monkeypatch.delenv(twin)
        unset = parsed(*needed, *rest)
        assert unset != typed
        monkeypatch.setenv(twin, "")
        assert parsed(*needed, *rest) == unset


def test_the_log_level_has_a_twin(run: Run) -> None:
    """Logs could not be turned down where the command line is fixed."""
    argv = ("release-lease", "--label=es", "--service-id=es-1")
    assert "no lease to release" in run(*argv).err
    assert run(*argv, env={"SERVICE_MONITOR_LOG_LEVEL": "warning"}).err == ""


def test_no_variable_of_ours_decides_unseen(run: Run) -> None:
    """SERVICE_MONITOR_WAIT alone could mean yes, or a number."""
    env = {"SERVICE_MONITOR_WAIT": "2", "SERVICE_MONITOR_TIMEOUT": "50ms"}
    assert "0 of 2 hosts up" in run("hosts", "--label=es", env=env).err


def test_every_option_is_checked_by_one_of_ours() -> None:
    """click's own types say "is not a valid integer range" of a wrong number."""
    kinds = {type(option.type) for _, option in OPTIONS}
    assert kinds <= {values._Type, click.Choice, click.types.BoolParamType}

"""Every option may come from the environment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import click
import pytest

from integration.support.certificates import Certificates
from integration.support.commands import COMMANDS, Run
from integration.support.option_values import VALUES
from service_monitor.cli import values
from service_monitor.cli.twins import Twin

Params = Callable[..., tuple[dict[str, object], list[str]]]

OTHERS = {
    ("hosts", "--timeout"): "WAIT_TIMEOUT",
    ("hosts", "--format"): "HOSTS_FORMAT",
    ("hosts", "--state"): "HOSTS_STATE",
    ("forget", "--service-id"): "FORGET_SERVICE_ID",
    ("status", "--format"): "STATUS_FORMAT",
} | {
    (command, option): name
    for command in ("watch", "run")
    for option, name in (("--timeout", "PROBE_TIMEOUT"), ("--monitor-url", "URL"))
}
"""Variables that are not called after their option alone."""
FLAGS = {"dry_run", "events", "force", "insecure", "print_role", "print_token", "yes"}
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
    word = first.removeprefix("--").replace("-", "_").upper()
    twin = f"SERVICE_MONITOR_{OTHERS.get((str(command.name), first), word)}"
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
    env = {"SERVICE_MONITOR_WAIT": "2", "SERVICE_MONITOR_WAIT_TIMEOUT": "50ms"}
    assert "0 of 2 hosts up" in run("hosts", "--label=es", env=env).err


OF_EACH_COMMAND = {
    "SERVICE_MONITOR_LABEL": "the cluster; `status` shows all of them without it",
    "SERVICE_MONITOR_HOST": "this node's host; what each command does with it differs",
}
"""Variables whose options are described in other words by other commands."""


def test_one_variable_has_one_meaning() -> None:
    """A file that all commands of a node read would set one thing for two."""
    meanings = defaultdict(set)
    for _, option in OPTIONS:
        assert isinstance(option, Twin)
        clear = {str(option.envvar), *option.older} - {option.ambiguous}
        words = None if option.envvar in OF_EACH_COMMAND else option.help
        for name in clear:
            meanings[name].add((option.opts[0], option.type.name, words))
    assert {name: uses for name, uses in meanings.items() if len(uses) > 1} == {}


def test_ambiguous_names_are_the_two_of_old() -> None:
    """A new option would be given a variable that already meant something else."""
    read = {o.ambiguous for _, o in OPTIONS if isinstance(o, Twin) and o.ambiguous}
    assert read == {"SERVICE_MONITOR_TIMEOUT", "SERVICE_MONITOR_FORMAT"}


READS = [
    ("watch", "TIMEOUT", "PROBE_TIMEOUT", "2s"),
    ("run", "TIMEOUT", "PROBE_TIMEOUT", "2s"),
    ("hosts", "TIMEOUT", "WAIT_TIMEOUT", "2s"),
    ("hosts", "FORMAT", "HOSTS_FORMAT", "json"),
    ("status", "FORMAT", "STATUS_FORMAT", "json"),
]


@pytest.fixture
def params(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Params:
    """Parse a command in an environment; give its parameters and what it logs."""

    def parse(name: str, *argv: str, **env: str) -> tuple[dict[str, object], list[str]]:
        for word, value in env.items():
            monkeypatch.setenv(f"SERVICE_MONITOR_{word}", value)
        command = COMMANDS[name]
        needed = [p.opts[0] for p in command.params if p.required]
        given = ["--label=es"] if "--label" in needed else []
        if "--monitor-url" in needed and not {"URL", "MONITOR_URL"} & env.keys():
            given.append("--monitor-url=http://h:1/")
        rest = ["x"] if name == "run" else []
        context = command.make_context(name, [*given, *argv, *rest])
        logged = capsys.readouterr().err.splitlines()
        return context.params, [line.partition("WARNING ")[2] for line in logged]

    return parse


@pytest.mark.parametrize(("command", "older", "newer", "value"), READS)
class TestOlderNames:
    def test_an_ambiguous_one_is_read_and_warned_of(
        self, params: Params, command: str, older: str, newer: str, value: str
    ) -> None:
        """A file written for an earlier release would lose its timeout unheard."""
        by_older, logged = params(command, **{older: value})
        assert logged == [
            f"SERVICE_MONITOR_{older} has two meanings: here it is read as "
            f"SERVICE_MONITOR_{newer}. Set that one instead"
        ]
        by_newer, _ = params(command, **{older: "", newer: value})
        assert by_older == by_newer

    @pytest.mark.parametrize("same", [True, False])
    def test_the_new_one_wins(
        self,
        params: Params,
        command: str,
        older: str,
        newer: str,
        value: str,
        same: bool,
    ) -> None:
        """The one that has no effect would be changed again and again."""
        older_value = value if same else "nonsense"
        both, logged = params(command, **{newer: value, older: older_value})
        expected = (
            f"SERVICE_MONITOR_{newer} counts, and not its older name "
            f"SERVICE_MONITOR_{older}, which says something else"
        )
        assert logged == ([] if same else [expected])
        assert both == params(command, **{newer: value, older: ""})[0]

    def test_neither_counts_beside_the_option(
        self, params: Params, command: str, older: str, newer: str, value: str
    ) -> None:
        """Who types the option would be warned of what is not read at all."""
        option = f"--{older.lower()}={value}"
        _, logged = params(command, option, **{older: "nonsense", newer: "nonsense"})
        assert logged == []


def test_the_error_names_the_variable_that_was_read(run: Run) -> None:
    """The operator would look for a variable that is set nowhere."""
    code, _, err = run("hosts", "--label=es", env={"SERVICE_MONITOR_TIMEOUT": "x"})
    assert code == 2
    assert "SERVICE_MONITOR_TIMEOUT: 'x' is not a duration" in err


@pytest.mark.parametrize("command", ["watch", "run"])
def test_the_older_name_of_the_url_is_as_good(params: Params, command: str) -> None:
    """Each node's environment file would have to be written anew, for nothing."""
    older, logged = params(command, MONITOR_URL="http://u:s3cret@h:1/")
    assert logged == []
    newer, logged = params(command, URL="http://u:s3cret@h:1/", MONITOR_URL="")
    assert newer == older
    both, logged = params(command, URL="http://u:s3cret@h:1/", MONITOR_URL="http://b/")
    assert both == older
    assert logged == [
        "SERVICE_MONITOR_URL counts, and not its older name "
        "SERVICE_MONITOR_MONITOR_URL, which says something else"
    ]


def test_every_option_is_checked_by_one_of_ours() -> None:
    """click's own types say "is not a valid integer range" of a wrong number."""
    kinds = {type(option.type) for _, option in OPTIONS}
    assert kinds <= {values._Type, click.Choice, click.types.BoolParamType}

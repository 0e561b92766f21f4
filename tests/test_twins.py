"""Variables of others that look like ours, and ours that went wrong on their way."""

from __future__ import annotations

import click
import pytest

from integration.support.commands import COMMANDS, WATCH, Run, error_of, keys, register
from integration.support.option_values import VALUES
from service_monitor.node import joining
from service_monitor.stores.base import Store

OF_KUBERNETES = {
    "SERVICE_MONITOR_SERVICE_HOST": "10.96.0.7",
    "SERVICE_MONITOR_SERVICE_PORT": "2379",
    "SERVICE_MONITOR_SERVICE_PORT_CLIENT": "2379",
    "SERVICE_MONITOR_PORT": "tcp://10.96.0.7:2379",
    "SERVICE_MONITOR_PORT_2379_TCP": "tcp://10.96.0.7:2379",
    "SERVICE_MONITOR_PORT_2379_TCP_PROTO": "tcp",
    "SERVICE_MONITOR_PORT_2379_TCP_PORT": "2379",
    "SERVICE_MONITOR_PORT_2379_TCP_ADDR": "10.96.0.7",
    # of a service called service-monitor-etcd
    "SERVICE_MONITOR_ETCD_SERVICE_HOST": "10.96.0.8",
    "SERVICE_MONITOR_ETCD_PORT": "udp://[fd00::8]:53",
}
OF_A_LINK = {
    "SERVICE_MONITOR_NAME": "/web/service-monitor",
    "SERVICE_MONITOR_PORT": "tcp://172.17.0.5:8080",
    "SERVICE_MONITOR_PORT_8080_TCP_START": "tcp://172.17.0.5:8080",
    "SERVICE_MONITOR_ENV_PYTHON_VERSION": "3.13",
    "SERVICE_MONITOR_ENV_LABEL": "'x'",
}


@pytest.mark.parametrize("theirs", [OF_KUBERNETES, OF_A_LINK], ids=["pod", "link"])
def test_what_others_set_is_not_ours(
    run: Run, store: Store, theirs: dict[str, str]
) -> None:
    """Beside a service of our name no command would run."""
    register(store, "es-1", "10.0.0.1")
    assert run("hosts", "--label=es", env=theirs) == (0, "10.0.0.1\n", "")
    typed = run("hosts", "--label=es", "--port=9300", env=theirs)
    assert typed == (0, "10.0.0.1:9300\n", "")


def test_a_port_of_ours_is_still_ours(run: Run, store: Store) -> None:
    """What is set on purpose would be left aside without a word."""
    register(store, "es-1", "10.0.0.1")
    env = {"SERVICE_MONITOR_PORT": "9300"}
    assert run("hosts", "--label=es", env=env).out == "10.0.0.1:9300\n"
    wrong = run("hosts", "--label=es", env={"SERVICE_MONITOR_PORT": "tcp"})
    assert error_of(wrong).startswith("SERVICE_MONITOR_PORT: 'tcp' is not a whole")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LABLE", "LABEL"),
        ("SERVICEID", "SERVICE_ID"),
        ("LEASE_TIME_OUT", "LEASE_TIMEOUT"),
        ("NAME", None),
        ("MY_PORT", "PORT"),
        ("SERVICE_INFO", "INFO"),
        ("HOST_IP", "HOST"),
    ],
)
def test_a_misspelt_variable_is_warned_of(
    run: Run, name: str, meant: str | None
) -> None:
    """A setting would have no effect, and nobody would be told why."""
    env = {f"SERVICE_MONITOR_{name}": "es-1"}
    code, out, err = run("hosts", "--label=es", env=env)
    assert (code, out) == (0, "\n")
    hint = f": did you mean SERVICE_MONITOR_{meant}?" if meant else ""
    (line,) = err.splitlines()
    expected = f"WARNING SERVICE_MONITOR_{name} is set, and nothing reads it{hint}"
    assert line.endswith(expected)


@pytest.mark.parametrize(
    "name",
    [
        "service_monitor_lease_timeout",
        "SERVICE_MONITER_LEASE_TIMEOUT",
        "SERVICEMONITOR_LEASE_TIMEOUT",
        "SERVICE-MONITOR-LEASE-TIMEOUT",
        "SERVICE_MONITORS_LEASE_TIMEOUT",
    ],
)
def test_a_misspelt_prefix_is_warned_of(run: Run, name: str) -> None:
    """Lower case alone would leave a setting without effect, and without a word."""
    code, out, err = run("hosts", "--label=es", env={name: "9m"})
    assert (code, out) == (0, "\n")
    (line,) = err.splitlines()
    hint = "did you mean SERVICE_MONITOR_LEASE_TIMEOUT?"
    assert line.endswith(f"WARNING {name} is set, and nothing reads it: {hint}")


def test_the_variables_of_others_are_their_own(run: Run) -> None:
    """Each command would warn of settings of a program with a like name."""
    names = ["SERVICE_MONITORING_HOST", "SERVICE_MONITORS_SERVICE_HOST", "MONITOR_HOST"]
    names += ["SERVICE_HOST", "SERVICE_MONITORS_PORT_80_TCP_PORT", "PORT", "no_proxy"]
    env = dict.fromkeys(names, "x") | {"SERVICE_MONITORS_PORT": "tcp://10.0.0.1:80"}
    assert run("hosts", "--label=es", env=env) == (0, "\n", "")


def test_the_hint_comes_with_the_error(run: Run) -> None:
    """Who misspelt --label's variable would only read that --label is missing."""
    code, _, err = run("hosts", env={"SERVICE_MONITOR_LABLE": "es"})
    assert code == 2
    assert "did you mean SERVICE_MONITOR_LABEL?" in err
    assert "--label is missing" in err


def test_what_run_sets_and_other_commands_read_is_known(run: Run) -> None:
    """Each command that the service calls would warn of what we set ourselves."""
    env = {joining.HOSTS: "a", joining.FIRST: "1", joining.TOKEN: "7"}
    env |= {"SERVICE_MONITOR_TTL": "x", "SERVICE_MONITOR_INFO": "'k=v'"}
    assert run("hosts", "--label=es", env=env) == (0, "\n", "")


OPTIONS = [
    (command, option)
    for command in COMMANDS.values()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]


def parsed(command: click.Command, option: click.Option) -> object:
    names = [p.opts[0] for p in command.params if p.required and p is not option]
    options = [name for name in names if name.startswith("--")]
    argv = [f"{name}={VALUES[name[2:].replace('-', '_')]}" for name in options]
    rest = ["x"] if len(options) < len(names) else []
    with command.make_context("x", [*argv, *rest]) as context:
        return context.params.get(str(option.name))


@pytest.mark.parametrize(
    ("command", "option"), OPTIONS, ids=lambda thing: getattr(thing, "name", None)
)
@pytest.mark.parametrize("form", ['"{}"', "'{}'", '""', "“{}”", "{}\r", '"{}"\r'])
def test_what_an_env_file_leaves_in_a_value_is_refused(
    command: click.Command,
    option: click.Option,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others would read a key with a quote in it, or wait for a label of their own."""
    value = (VALUES | {"ca": "/ca.pem", "log_level": "info"}).get(str(option.name))
    monkeypatch.setenv(str(option.envvar), form.format(value))
    with pytest.raises(click.UsageError) as refused:
        parsed(command, option)
    message = refused.value.format_message()
    assert message.startswith(f"{option.envvar}: the value ")
    assert "Windows line ends" in message or "leave them out" in message
    assert "Basic" not in message  # the header's secret


@pytest.mark.parametrize(
    "info", ['rack="a1"', "rack='a1'", 'a=1\n"rack=a1"', "'{\"rack\": 1}'"]
)
def test_quotes_are_never_published(run: Run, store: Store, info: str) -> None:
    """Whoever reads the records would find a rack called "a1" with quotes in it."""
    outcome = run(*WATCH, env={"SERVICE_MONITOR_INFO": info})
    assert outcome.code == 2
    assert "leave them out" in error_of(outcome)
    assert keys(store) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("info", '{\n  "rack": "a1"\n}', ({"rack": "a1"},)),
        ("info", "  a=1\n  b=say 'x'\n", ({"a": "1"}, {"b": "say 'x'"})),
        ("header", 'If-None-Match: "x"', (("If-None-Match", '"x"'),)),
        ("rise", " 3\n", 3),
        ("interval", "7s ", 7.0),
    ],
)
def test_what_is_right_stays_right(
    name: str, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that worked would be refused for its looks."""
    command = COMMANDS["watch"]
    (option,) = (p for p in command.params if p.name == name)
    assert isinstance(option, click.Option)
    monkeypatch.setenv(str(option.envvar), value)
    assert parsed(command, option) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LABEL", "es "),
        ("SERVICE_ID", " es-1"),
        ("HOST", "10.0.0.1\n"),
        ("MONITOR_URL", "http://h "),
        ("STORE", "sqlite:///tmp/store.db "),
        ("LOG_LEVEL", "info "),
        ("HEARTBEAT_FILE", "/tmp/beat "),
        ("CA", "/ca.pem "),
    ],
)
def test_blanks_around_a_value_are_named(run: Run, variable: str, value: str) -> None:
    """With a blank at its end a SQLite file is another file, and so another lease."""
    env = {f"SERVICE_MONITOR_{variable}": value}
    argv = [arg for arg in WATCH if variable.lower().replace("_", "-") not in arg]
    assert error_of(run(*argv, env=env)) == (
        f"SERVICE_MONITOR_{variable}: the value has blanks around it: leave them out"
    )

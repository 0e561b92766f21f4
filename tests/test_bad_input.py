"""Bad input: exit 2, one line, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.support.commands import (
    WATCH,
    Run,
    environment,
    error_of,
    finish,
    started,
)
from integration.support.loopback import Serve, hanging
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.timing import now

BAD_NAMES = ["", " ", ".", "..", "../x", "a/b", "/abs", "%2e%2e", "a?b=c", "a#b", "_x"]
BAD_NAMES += ["-x", "a\nb", "a\x00b", "\x1b[31m", "a,b", "é", "x" * 129]
BAD_URLS = ["", "h", "http://", "http:///x", "ftp://h", "file:///etc", "http://h:0"]
BAD_URLS += [
    "http://h:65536",
    "http://h\r\nX: y",
    "http://[::1",
    "http://h/" + "x" * 9999,
]
BAD_URLS += ["http://u:s3%cret@h/", "http://u:s3%cret/x@h/"]
BAD_URLS += ["http://u:s3cret@h:0", "http://u:s3/cret@h", "tcp://h"]
BAD_DURATIONS = ["", "0", "-1", "nan", "inf", "1e309", "5x", "366d", "9" * 500]
BAD_STORES = ["", " ", "h:2379", "redis://h", "etcd://", "etcd://h:0", "etcd://h:65536"]
BAD_STORES += [
    "etcd://h/..",
    "etcd://u@h",
    "etcd://[::1",
    "etcds://h?cert=/x",
    "etcd:h",
]
BAD_STORES += ["etcds://h?ca=/a&ca=/b", "etcds://h?ca=/nowhere", "etcd://u:s3/cret@h"]
BAD_STORES += ["sqlite://x", "sqlite:///", "sqlite:///a%00b", "etcd://h\n", "etcd2://"]
BAD_STORES += ["sqlite:///tmp/100%.db", "sqlite:///tmp/%ff.db", "etcd://u:s3%cret@h"]
BAD_STORES += ["sqlite:///nowhere/x.db", "sqlite:///dev/null/x.db"]
BAD_STORES += ["etcd2s://h?cert=/x", "etcd://u@h?password-file=/nowhere", "http://h:1"]
BAD_STORES += [f"etcd://u:s3cret@h/{'x' * 2048}", f"sqlite:///{'x' * 2048}"]


LABELLED = [["hosts"], ["status"], ["acquire-lease"], ["release-lease"]]
LABELLED += [["forget", "--service-id=es-1"]]


def bad_input() -> Iterator[list[str]]:
    for name in BAD_NAMES:
        for command in LABELLED:
            yield [*command, "--label", name]
        yield [*WATCH, "--label", name]
        yield ["acquire-lease", "--label=es", "--service-id", name]
        yield ["release-lease", "--label=es", "--service-id", name]
        yield ["forget", "--label=es", "--service-id", name]
        yield [*WATCH, "--service-id", name]
    for url in BAD_URLS:
        yield ["watch", "--label=es", "--monitor-url", url]
    for duration in BAD_DURATIONS:
        for option in "--interval", "--timeout", "--ttl":
            yield [*WATCH, option, duration]
        for option in "--lease-timeout", "--acquire-timeout":
            yield ["acquire-lease", "--label=es", option, duration]
        yield ["hosts", "--label=es", "--wait", "--timeout", duration]
    for url in BAD_STORES:
        for command in LABELLED:
            yield [*command, "--label=es", "--store", url]
        yield [*WATCH, "--store", url]
    for count in "", "0", "-1", "1.5", "x", "9" * 50:
        yield [*WATCH, "--rise", count]
        yield [*WATCH, "--fall", count]
        yield ["acquire-lease", "--label=es", "--slots", count]
        yield ["hosts", "--label=es", "--port", count]
        yield [*WATCH, "--advertise-port", count]
        yield ["hosts", "--label=es", f"--wait={count}"]
        yield ["release-lease", "--label=es", "--token", count]
    yield ["hosts", "--label=es", "--port=65536"]
    yield ["hosts", "--label=es", "--format=yaml"]
    for state in "", "stopped", "UP", "up,down", "\x1b[2J":
        yield ["hosts", "--label=es", f"--state={state}"]
    for host in "", "h:9200", "0.0.0.0", "[::1]", "a,b", "224.0.0.1", "fe80::1%eth0":
        yield [*WATCH, "--host", host]
    for info in "", "x", "{", '{"a": NaN}', "k=\udcff":
        yield [*WATCH, "--info", info]
    for header in "", "s3cret", "X: s3\ncret: y":
        yield [*WATCH, "--header", header]
    for number in "", "x", "KILL", "CHLD", "-1", "0", "65", "RTMIN+99", "USR1,USR2":
        yield ["run", *WATCH[1:], f"--stop-signal={number}", "--", "true"]
    yield ["run", *WATCH[1:], "--stop-whom=all", "--", "true"]
    yield [*WATCH, "--ca="]
    yield [*WATCH, "--ca=/nowhere/ca.pem"]
    yield [*WATCH, "--insecure", "--store=redis://h"]
    yield [*WATCH, f"--ca={__file__}"]
    yield [*WATCH, "--timeout=10s"]
    yield [*WATCH, "--ttl=2s"]
    yield [*WATCH, "--interval=10s", "--ttl=12s"]
    yield ["acquire-lease", "--label=es", "--lease-timeout=500ms"]
    yield ["watch", "--label=es"]
    yield ["hosts"]
    yield ["hosts", "--label"]
    yield ["hosts", "--label=es", "extra"]
    yield ["hosts", "--lable=es"]
    yield ["hosts", "--\x1b[2J"]
    yield ["\x1b[2J"]
    yield ["x" * 100_000]


@pytest.mark.parametrize("argv", list(bad_input()), ids=lambda argv: ascii(argv)[:60])
def test_bad_input_is_refused_before_anything_is_sent(
    run: Run, path: Path, argv: list[str]
) -> None:
    """A typing error would wait for a timeout, write to the store, or be a riddle."""
    outcome = run(*argv)
    assert outcome.code == 2
    assert error_of(outcome)
    assert not path.exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"ETCDCTL_ENDPOINTS": "h:0"},
        {"ETCDCTL_USER": "root"},
        {"ETCDCTL_ENDPOINTS": "https://h", "ETCDCTL_CERT": "/x"},
        {"ETCDCTL_ENDPOINTS": "https://h", "ETCDCTL_CACERT": "/nowhere"},
    ],
)
@pytest.mark.parametrize(
    "argv",
    [
        [*WATCH],
        ["hosts", "--label=es"],
        ["acquire-lease", "--label=es"],
        ["release-lease", "--label=es"],
        ["status"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_bad_default_store_is_refused(
    run: Run, argv: list[str], variables: dict[str, str]
) -> None:
    """A machine set up wrongly would wait out its timeout at each start."""
    outcome = run(*argv, env=variables | {"SERVICE_MONITOR_STORE": ""})
    assert outcome.code == 2
    assert error_of(outcome).startswith("from the ETCDCTL_ variables: ")


@pytest.mark.parametrize(
    "bad",
    [
        ["watch", "--rise=1.5"],
        ["watch", "--timeout=9s"],
        ["watch", "--ttl=nan"],
        ["watch", "--label=a/b"],
        ["hosts", "--timeout=1e309"],
        ["hosts", "--label=../x"],
        ["acquire-lease", "--slots=0"],
        ["acquire-lease", "--service-id=a#b"],
        ["release-lease", "--token=-1"],
        ["release-lease", "--service-id=d?recursive=true"],
        ["status", "--label=_x"],
        ["forget", "--service-id=d/*"],
        ["status", "--log-level=loud"],
    ],
    ids=" ".join,
)
def test_the_process_refuses_before_it_connects_to_anything(
    path: Path, serve: Serve, bad: list[str]
) -> None:
    """A typing error would reach another key of the store, or the service."""
    server = serve(hanging)
    variables = {
        "SERVICE_MONITOR_STORE": f"etcd://127.0.0.1:{server.port}",
        "SERVICE_MONITOR_MONITOR_URL": server.url,
        "SERVICE_MONITOR_LABEL": "es",
    }
    begun = now()
    with started(bad, environment(path, **variables)) as running:
        outcome = finish(running)
    assert now() - begun < CALL_TIMEOUT  # 0.1 s, on a machine with nothing else to do
    assert outcome.code == 2
    assert error_of(outcome).startswith(bad[1].partition("=")[0])
    assert server.connections == 0


@pytest.mark.parametrize("label", [b"\xff", b"a\nb", b"../x"])
def test_bad_bytes_are_refused_by_the_process(path: Path, label: bytes) -> None:
    """Python would end in a traceback over what it cannot encode."""
    with started(["status", b"--label=" + label], environment(path)) as running:
        outcome = finish(running)
    assert outcome.code == 2
    assert error_of(outcome).startswith("--label: '")
    assert not path.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["status", "--label="], "--label: '' is not a name: 1 to 128 letters, digits"),
        (["hosts"], "--label is missing; it may also come from SERVICE_MONITOR_LABEL"),
        (
            ["hosts", "--label=a", "--port=0"],
            "--port: '0' is not a whole number from 1",
        ),
        (["hosts", "--label=a", "--format=x"], "--format: 'x' is not one of 'comma',"),
        ([*WATCH, "--host=ff02::1"], "--host: 'ff02::1' is nothing that others can"),
        ([*WATCH, "--host=fe80::1%eth0"], "--host: 'fe80::1%eth0' has a zone (%...)"),
        ([*WATCH, "--host-ip=a:1"], "--host: 'a:1' is not a host name or address"),
        ([*WATCH, "--timeout=9s"], "--timeout 9 s is longer than --interval 5 s"),
        ([*WATCH, "--ttl=1"], "--ttl 1 s is too short to be kept: raise it to 8 s"),
        (["status", "--store=x"], "unknown store 'x': use etcd://HOST:2379"),
    ],
)
def test_errors_say_what_is_wrong(run: Run, argv: list[str], message: str) -> None:
    """An operator would not know which option to change, and to what."""
    assert error_of(run(*argv)).startswith(message)


@pytest.mark.parametrize(
    ("variable", "value", "argv"),
    [
        ("LABEL", "a/b", ["status"]),
        ("SLOTS", "1.5", ["acquire-lease", "--label=es"]),
        ("STATUS_FORMAT", "yaml", ["status"]),
        ("INSECURE", "perhaps", [*WATCH]),
        ("LOG_LEVEL", "loud", ["status"]),
        ("INFO", "a=1\nb", [*WATCH]),
        ("STORE", " ", ["status"]),
    ],
)
def test_a_bad_variable_is_named(
    run: Run, path: Path, variable: str, value: str, argv: list[str]
) -> None:
    """The error would speak of an option that nobody has typed."""
    outcome = run(*argv, env={f"SERVICE_MONITOR_{variable}": value})
    assert outcome.code == 2
    assert error_of(outcome).startswith(f"SERVICE_MONITOR_{variable}: ")
    assert not path.exists()


def test_a_command_line_goes_before_the_environment(run: Run) -> None:
    """A variable of the machine could not be overridden; the error would name it."""
    variables = {"SERVICE_MONITOR_LABEL": "a/b"}
    assert run("status", "--label=es", env=variables).code == 0
    assert error_of(run("status", "--label=?", env=variables)).startswith(
        "--label: '?'"
    )

"""Each option's value is checked before anything is sent."""

from __future__ import annotations

import base64
import logging
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from requests import Request

from integration.support.certificates import Certificates
from service_monitor.cli import options, values
from service_monitor.errors import ConfigError
from service_monitor.net.addresses import split_port
from service_monitor.net.urls import mask_url
from service_monitor.node.monitored import read_monitored_url
from service_monitor.text import forget_hidden, masked

URLS = ["http://h", "https://h:9200/_cluster/health?local=true", "http://[::1]:80/"]
URLS += ["http://user:p%40ss@h/", "tcp://h:9300", "tcp://[::1]:1", "http://h?x=1"]
URLS += ["http://h/" + "a" * 2039]
NAMES = ["es", "ES", "a", "0", "a.b_c-d", "Service-0x3241dc3", "a" * 128]
NO_NAMES = ["", " ", ".", "..", "../x", "a/b", "/abs", "%2e%2e", "a?b=c", "a#b", "_a"]
NO_NAMES += ["-a", "a\n", "\na", "a\nb", "a\x00", "\x1b[31m", "a,b", "é", "٣", "a b"]
NO_NAMES += ["a" * 129, "a:b", "a\\b", "\udcff"]


def test_a_password_that_is_no_text_is_hidden_as_it_is_sent() -> None:
    """A server that quotes our request would tell it to the log."""
    read_monitored_url("http://%C3%A4:s3cret%FFs3cret@h/")
    sent = base64.b64encode(b"\xc3\xa4:s3cret\xffs3cret").decode()
    wrong = b"s3cret\xffs3cret".decode("latin-1")
    assert masked(f"<{sent}> <{wrong}>") == "<***> <***>"
    forget_hidden()


@pytest.mark.parametrize("text", NAMES)
def test_accepts_names(text: str) -> None:
    """A cluster with a good name could not be started."""
    assert values.read_name(text) == text


@pytest.mark.parametrize("text", NO_NAMES)
def test_refuses_what_would_reach_another_key(text: str) -> None:
    """A label like ../x reaches other keys of etcd, even its members API."""
    with pytest.raises(ValueError, match="is not a name"):
        values.read_name(text)


@pytest.mark.parametrize("text", ["es-1", "10.0.0.1", "2001:db8::1", "127.0.0.1"])
def test_accepts_hosts(text: str) -> None:
    """A node could not say where it is."""
    assert values.read_host(text) == text


@pytest.mark.parametrize(
    "text", ["h:9200", "[::1]", "http://h", "", "a,b", "10.0.0.256"]
)
def test_refuses_what_is_no_host(text: str) -> None:
    """`hosts` would print what breaks the list or nobody can reach."""
    with pytest.raises(ValueError, match="is not a host name or address"):
        values.read_host(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"])
def test_refuses_to_publish_any_address(text: str) -> None:
    """What a service listens on is not where others find it."""
    with pytest.raises(ValueError, match="nothing that others can connect to"):
        values.read_host(text)


@pytest.mark.parametrize("text", URLS)
def test_accepts_urls(text: str) -> None:
    """A service that answers there could not be watched."""
    url = read_monitored_url(text)
    assert url.bare == re.sub("//[^/?]*@", "//", text)
    assert str(url) == mask_url(text)
    assert url.has_secret == (mask_url(text) != text)


def test_the_scheme_of_a_url_has_no_case() -> None:
    """TCP://h:1 would be probed with HTTP."""
    assert read_monitored_url("TCP://h:1").scheme == "tcp"
    url = read_monitored_url("Http://H/A")
    assert (url.scheme, url.host, url.bare) == ("http", "h", "http://H/A")
    assert str(url) == "http://H/A"


def test_user_and_password_are_read_as_they_are_sent() -> None:
    """The service would refuse the probe, and be down for ever."""
    url = read_monitored_url("http://%C3%A4:p%40s:s@h:1/x?y")
    assert url.credentials == (b"\xc3\xa4", b"p@s:s")
    assert url.bare == "http://h:1/x?y"
    assert read_monitored_url("http://u@h").credentials == (b"u", b"")
    assert read_monitored_url("http://h").credentials is None
    forget_hidden()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a URL to probe"),
        (" ", "is not a URL: ASCII"),
        ("h:9200", "is not a URL to probe"),
        ("http:h", "is not a URL to probe"),
        ("ftp://h", "is not a URL to probe"),
        ("file:///etc/passwd", "is not a URL to probe"),
        ("http://", "names no host"),
        ("http:///x", "names no host"),
        ("http://user:s3cret@", "names no host"),
        ("http://h:0", "no valid port"),
        ("http://h:65536", "no valid port"),
        ("http://h:", "no valid port"),
        ("http://h:x", "no valid port"),
        ("http://-h", "no valid host"),
        ("http://h..x", "no valid host"),
        ("http://256.256.256.256", "no valid host"),
        ("http://[::1", "names no host"),
        ("http://[::1]x", "names no host"),
        ("http://::1/", "brackets"),
        ("http://h\r\nX: y", "is not a URL: ASCII"),
        ("http://h/\x00", "is not a URL: ASCII"),
        ("http://h/a b", "is not a URL: ASCII"),
        ("http://hé/", "is not a URL: ASCII"),
        ("http://h/" + "a" * 2040, "is not a URL: ASCII"),
        ("http://h/#top", "is not a URL to probe"),
        ("http://u:s3cret#x@h", "is not a URL to probe"),
        ("http://u:s3/cret@h", "no valid port"),
        ("http://h\\@x/", "is not a URL to probe"),
        ("http://u[:s3@h/", "is not a URL to probe"),
        ("http://u:s3%cret@h", "has a % that escapes nothing: write %25 for it"),
        ("http://u:s3cret%@h", "has a % that escapes nothing"),
        ("http://u%zz@h", "has a % that escapes nothing"),
        ("http://[fe80::1]:9200/", "names no interface: write ."),
        ("tcp://[FE80::1]:9300", "names no interface"),
        ("tcp://h", "is not just tcp://HOST:PORT"),
        ("tcp://h:1/", "is not just tcp://HOST:PORT"),
        ("tcp://u@h:1", "is not just tcp://HOST:PORT"),
        ("tcp://h:1?x", "is not just tcp://HOST:PORT"),
    ],
)
def test_refuses_what_cannot_be_probed(text: str, why: str) -> None:
    """The probe would fail for ever, or go somewhere else."""
    with pytest.raises(ValueError, match=why) as refused:
        read_monitored_url(text)
    assert "s3" not in str(refused.value)


@given(st.text(alphabet="hu:/?#@[]%0125.\\~", max_size=25))
def test_all_read_a_url_alike(rest: str) -> None:
    """A host would be checked here, and another one be probed."""
    try:
        url = read_monitored_url(f"http://{rest}")
    except ValueError:
        return
    parts = urlsplit(f"http://{rest}")
    place = parts.netloc.rpartition("@")[2]
    asked = urlsplit(str(Request("GET", f"http://{place}/").prepare().url))
    assert (asked.hostname, asked.port) == (parts.hostname, parts.port)
    assert (parts.hostname or "").replace("%25", "%") == url.host
    assert split_port(place)[1] == url.port


def test_reads_headers() -> None:
    """A service behind a token could not be probed."""
    assert values.read_header("X-Token: a:b ") == ("X-Token", "a:b")
    assert values.read_header("X-Empty:") == ("X-Empty", "")


@pytest.mark.parametrize(
    "text", ["", "x", ": y", "a b: c", "X: a\r\nY: b", "X: é", "X: \x00", "X\n: y"]
)
def test_refuses_headers_that_would_split(text: str) -> None:
    """One header would smuggle in another."""
    with pytest.raises(ValueError, match=r"write 'Name: value'|printable ASCII"):
        values.read_header(text)


@pytest.mark.parametrize(
    ("text", "info"),
    [
        ("k=v", {"k": "v"}),
        (" k =a=b", {"k": "a=b"}),
        ("k=", {"k": ""}),
        ('{"http_port": 9200}', {"http_port": 9200}),
        (' {"a": {"b": [1, null, "é"]}}', {"a": {"b": [1, None, "é"]}}),
        ("{}", {}),
    ],
)
def test_reads_info_of_both_kinds(text: str, info: dict[str, object]) -> None:
    """Units of the 2014 tool would not start."""
    assert values.read_info(text) == info


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "KEY=VALUE or a JSON object"),
        ("x", "KEY=VALUE or a JSON object"),
        ("=v", "KEY=VALUE or a JSON object"),
        (" =v", "KEY=VALUE or a JSON object"),
        ("[1]", "KEY=VALUE or a JSON object"),
        ("{", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ('{"a": 1} x', "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"a": NaN}', "cannot"),
        ('{"a": 1e999}', "cannot"),
        ('{"a": "\\ud800"}', "cannot"),
        ("k=\udcff", "cannot"),
        ('{"a":' + "[" * 5000, "is too much"),
        ("k=" + "v" * 20000, "is too much"),
    ],
)
def test_refuses_info_that_no_record_can_hold(text: str, why: str) -> None:
    """`watch` would crash with the first write, or the readers with the first read."""
    with pytest.raises(ValueError, match=why):
        values.read_info(text)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_blank_store_is_no_default(text: str) -> None:
    """--store=$UNSET would silently be another store than the other nodes have."""
    with pytest.raises(ValueError, match="names no store"):
        values.read_store(text)
    assert values.read_store("etcd://h") == "etcd://h"


def test_reads_numbers() -> None:
    """A count from a unit file would be refused."""
    assert values.read_number(" 12 ") == 12
    assert values.read_number("1") == 1
    assert values.read_number("1000000") == 1_000_000
    assert values.PORT.convert("65535", None, None) == 65535
    with pytest.raises(click.BadParameter, match="from 1 to 65535"):
        values.PORT.convert("65536", None, None)
    assert values.TOKEN.convert("9223372036854775807", None, None) == 2**63 - 1


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "x", "1e3", "٣", "1000001", "9" * 5000, "0x1", "1_0"]
)
def test_refuses_what_is_no_count(text: str) -> None:
    """No slots at all would block the cluster for ever."""
    with pytest.raises(ValueError, match="is not a whole number from 1 to 1000000"):
        values.read_number(text)


def test_checks_the_bundle_of_cas(certificates: Certificates) -> None:
    """Every probe would fail for a reason that is not the service's."""
    assert values.read_ca(certificates.ca) == certificates.ca
    with pytest.raises(ValueError, match="no such file"):
        values.read_ca("/nowhere")


@pytest.mark.parametrize(
    "kind", [values.NAME_TYPE, values.HOST_TYPE, values.DURATION, values.COUNT]
)
def test_an_error_quotes_what_was_given(kind: click.ParamType[object]) -> None:
    """With ten options in a unit file nobody would know which one is meant."""
    with pytest.raises(click.BadParameter, match=r"^'\\x1b\[2J' is"):
        kind.convert("\x1b[2J", None, None)


def test_secrets_are_not_quoted() -> None:
    """A typing error beside a password would print it."""
    with pytest.raises(click.BadParameter, match=r"^'http://u:\*\*\*@h:0' has no"):
        values.URL_TYPE.convert("http://u:s3cret@h:0", None, None)
    with pytest.raises(click.BadParameter, match=r"^what was given"):
        values.HEADER_TYPE.convert("Authorization s3cret", None, None)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A: 1 2", ["A: 1 2"]),
        ("A: 1\nB: 2\r\n\n \n", ["A: 1", "B: 2"]),
        ('{"a": 1,\n "b": 2}', ['{"a": 1,\n "b": 2}']),
    ],
)
def test_a_variable_holds_a_line_for_each(text: str, lines: list[str]) -> None:
    """click splits at blanks: `Authorization: Basic x` would fall to pieces."""
    assert values.HEADER_TYPE.split_envvar_value(text) == lines


def test_every_option_has_its_twin() -> None:
    """A container could not be configured by its environment."""

    @click.command()
    @options.option("--some-thing", "-s", "thing", default="x")
    def command(thing: str) -> None:
        click.echo(thing)

    run = CliRunner().invoke
    assert run(command, env={"SERVICE_MONITOR_SOME_THING": "y"}).output == "y\n"
    assert run(command, env={"SERVICE_MONITOR_SOME_THING": ""}).output == "x\n"
    assert "[default: x]" in run(command, ["--help"]).output


def test_the_service_id_is_the_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit file would have to name its node."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1.example")
    assert values.own_name() == "node-1.example"


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", "", "näme"])
def test_a_host_name_that_names_no_node(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All nodes would share one service id, and one place in the queue."""
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    with pytest.raises(
        ConfigError, match=r"the host name '.*' is .*: set --service-id"
    ):
        values.own_name()


Log = Callable[[str], str]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """Log a warning as the commands do, and return what stands on stderr."""

    def log(message: str) -> str:
        command = click.Command("x")
        options.start_logging(click.Context(command), click.Option(["--x"]), "info")
        logging.getLogger("service_monitor.test").warning("%s", message)
        logging.getLogger("service_monitor.test").debug("not this")
        logging.getLogger("urllib3").info("nor this")
        return capsys.readouterr().err

    return log


def test_a_log_record_is_one_line(log: Log) -> None:
    """Another node's record could forge lines of this one's log."""
    err = log("a\nWARNING \x1b[2Jb")
    assert err.count("\n") == 1
    assert err.endswith("WARNING a\\nWARNING \\x1b[2Jb\n")


def test_libraries_do_not_talk_of_requests(log: Log) -> None:
    """urllib3 logs URLs at debug level, with what is in them."""
    assert log("a").count("\n") == 1

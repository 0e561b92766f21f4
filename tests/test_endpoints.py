"""From a URL and the environment to a store, and from endpoint to endpoint."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.support.certificates import Certificates
from integration.support.commands import HANG
from service_monitor.errors import (
    ConfigError,
    LocalLack,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Stop
from service_monitor.stores.etcd import endpoints
from service_monitor.stores.etcd.endpoints import (
    Access,
    Endpoint,
    Failover,
    default_url,
    parse_endpoints,
)
from service_monitor.stores.etcd.v2 import Etcd2Store
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.stores.opening import open_store
from service_monitor.stores.sqlite.store import SqliteStore
from service_monitor.timing import now

NO_FILES = ["sqlite:", "sqlite://", "sqlite:///", "sqlite://x.db", "sqlite:x.db"]
NO_FILES += ["sqlite:/x.db", "sqlite:///d/", "sqlite:///x?y", "sqlite:///x#y"]
NO_FILES += ["sqlite:///x%00y", "sqlite:///x\n", "sqlite://h/x.db"]
NO_NAME = "no-such-host.invalid"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("etcd://h", ["http://h:2379"]),
        ("ETCD://h", ["http://h:2379"]),
        ("etcd://h:4001/", ["http://h:4001"]),
        (
            "etcd://h1:1,h2,10.0.0.1:3",
            ["http://h1:1", "http://h2:2379", "http://10.0.0.1:3"],
        ),
        ("etcd://[::1]:1,[::1]", ["http://[::1]:1", "http://[::1]:2379"]),
        ("etcd://h:1,h:1", ["http://h:1"]),
        ("etcds://h", ["https://h:2379"]),
        ("etcd2s://u:p@h", ["https://h:2379"]),
    ],
)
def test_reads_endpoints(url: str, found: list[str]) -> None:
    """The wrong member would be asked, or none."""
    assert [str(endpoint) for endpoint in parse_endpoints(url, {})[0]] == found


@pytest.mark.parametrize(
    ("url", "access"),
    [
        ("etcd://h", Access()),
        ("etcd://h/", Access()),
        ("etcd://h/a/b.c", Access("/a/b.c")),
        ("etcd://h/a/", Access("/a")),
        ("etcd://u:p@h", Access(user="u", password="p")),
        ("etcd://u:p:q%40%2F%23@h", Access(user="u", password="p:q@/#")),
        ("etcd://u:p%25%C3%A9@h", Access(user="u", password="p%é")),
        ("etcd://u%3Av:p@h", Access(user="u:v", password="p")),
    ],
)
def test_reads_prefix_and_credentials(url: str, access: Access) -> None:
    """Nodes would be let in as somebody else, or meet under different keys."""
    assert parse_endpoints(url, {})[1] == access


@pytest.mark.parametrize(
    ("url", "environ", "user", "password"),
    [
        ("etcd://h", {"ETCDCTL_USER": "u:p%"}, "u", "p%"),
        ("etcd://h", {"ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"}, "u", "p"),
        ("etcd://u@h", {"ETCDCTL_PASSWORD": "p"}, "u", "p"),
        ("etcd://u:p@h", {"ETCDCTL_USER": "x:y", "ETCDCTL_PASSWORD": "z"}, "u", "p"),
        ("etcd://h", {"ETCDCTL_PASSWORD": "p"}, None, None),
        ("etcd://h", {"ETCDCTL_USER": ""}, None, None),
    ],
)
def test_credentials_come_from_where_etcdctl_has_them(
    url: str, environ: dict[str, str], user: str | None, password: str | None
) -> None:
    """An etcd user would have to write the password into the command line."""
    access = parse_endpoints(url, environ)[1]
    assert (access.user, access.password) == (user, password)


@pytest.mark.parametrize("content", ["p:%", "p:%\n", "p:%\r\n"])
@pytest.mark.parametrize(
    ("url", "user"), [("etcd://u@h", "u"), ("etcd://h", "v"), ("etcd2s://u@h", "u")]
)
def test_a_password_comes_from_a_file(
    tmp_path: Path, content: str, url: str, user: str
) -> None:
    """A secret mounted by Docker or systemd would have to be copied into a variable."""
    file = tmp_path / "p w"
    file.write_text(content)
    environ = {"ETCDCTL_USER": "v", "ETCDCTL_PASSWORD": "z"}
    found = f"{url}?password-file={tmp_path}/p%20w"
    access = parse_endpoints(found, environ)[1]
    assert (access.user, access.password) == (user, "p:%")


@pytest.mark.parametrize(
    ("url", "content", "why"),
    [
        ("etcd://u@h", b"", "empty or too long"),
        ("etcd://u@h", b"\n", "empty or too long"),
        ("etcd://u@h", b"s3cret" * 999, "empty or too long"),
        ("etcd://u@h", b"s3\xffcret", "not UTF-8"),
        ("etcd://u@h", b"s3cret\n\n", "more than one line"),
        ("etcd://u@h", b"s3cret\r\ns3cret", "more than one line"),
        ("etcd://u:s3cret@h", b"p", "needs a user, and no password"),
        ("etcd://h", b"p", "needs a user, and no password"),
    ],
)
def test_refuses_a_password_file_without_showing_it(
    tmp_path: Path, url: str, content: bytes, why: str
) -> None:
    """acquire-lease would be refused by the store until its timeout."""
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        parse_endpoints(f"{url}?password-file={file}", {})
    assert why in str(refused.value)
    assert "s3" not in str(refused.value)
    assert "xff" not in str(refused.value)


def test_tls_files_come_from_the_url_or_from_where_etcdctl_has_them(
    certificates: Certificates, strangers: Certificates
) -> None:
    """An etcd that asks for certificates could not be used."""
    ca, cert, key = certificates.ca, certificates.cert, certificates.key
    environ = {"ETCDCTL_CACERT": ca, "ETCDCTL_CERT": cert, "ETCDCTL_KEY": key}
    expected = Access(ca=ca, cert=(cert, key))
    assert parse_endpoints("etcds://h", environ)[1] == expected
    url = f"etcds://h?ca={ca}&cert={cert}&key={key}"
    assert parse_endpoints(url, {"ETCDCTL_CACERT": strangers.ca})[1] == expected
    assert parse_endpoints("etcd://h", {"ETCDCTL_CACERT": "/no"})[1] == Access()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("etcd:", "does not read as"),
        ("etcd:h", "does not read as"),
        ("etcd://", "names no host"),
        ("etcd:///p", "names no host"),
        ("etcd://u:s3cret@", "names no host"),
        ("etcd://h,,h", "names no host"),
        ("etcd://h1,", "names no host"),
        ("etcd://[::1", "names no host"),
        ("etcd://h,[fe80::1]:2379", "names no interface"),
        ("etcd://u:s3%cret@h", "has a % that escapes nothing: write %25 for it"),
        ("etcd://u:s3cret%@h", "has a % that escapes nothing"),
        ("etcd://u:s3%ffcret@h", "escapes bytes that are not UTF-8"),
        ("etcd://h_!", "no valid host"),
        ("etcd://10.0.0.256", "no valid host"),
        ("etcd://h:0", "no valid port"),
        ("etcd://h:65536", "no valid port"),
        ("etcd://h:", "no valid port"),
        ("etcd://h:x", "no valid port"),
        ("etcd://h h", "does not read as"),
        (" etcd://h", "does not read as"),
        ("etcd://h\n", "does not read as"),
        ("etcd://h\r", "does not read as"),
        ("etcd://hé", "does not read as"),
        ("etcd://h/../x", "does not read as"),
        ("etcd://h/a//b", "does not read as"),
        ("etcd://h/_hidden", "does not read as"),
        ("etcd://h/%2e", "does not read as"),
        ("etcd://h#x", "does not read as"),
        ("etcd://u:s3/cret@h", "does not read as"),
        ("etcd://u:s3#cret@h", "does not read as"),
        ("etcd://u:s3?cret@h", "does not read as"),
        ("etcd://u:s3@cret@h", "does not read as"),
        ("etcd://:s3@h", "names no user"),
        ("etcd://@h", "names no user"),
        ("etcd://a,u:s3@h2", "once for all hosts"),
        ("etcd://u@h", "has no password for 'u': set ETCDCTL_PASSWORD, or ?password"),
        ("etcd://u@h?password-file", "needs password-file once, with a value"),
        ("etcd://u@h?password-file=/no", "no password in /no: no such file"),
        ("etcd://u@h?password-file=/", "no password in /: is a directory"),
        ("etcd://u:@h", "has no password for 'u': set ETCDCTL_PASSWORD"),
        ("etcds://h?x=1", "unknown option 'x'"),
        ("etcds://h?ca", "needs ca once, with a value"),
        ("etcds://h?ca=", "needs ca once, with a value"),
        ("etcds://h?ca=a&ca=b", "needs ca once, with a value"),
        ("etcd://h?ca=/ca.pem", "needs TLS"),
        ("etcds://h?cert=a", "needs both cert and key"),
        ("etcds://h?key=a", "needs both cert and key"),
        ("etcds://h?ca=/nowhere/ca.pem", "no such file: /nowhere/ca.pem"),
    ],
)
def test_refuses_a_url_without_showing_its_password(url: str, why: str) -> None:
    """acquire-lease would wait out its timeout, or its log tell the password."""
    with pytest.raises(ConfigError) as refused:
        parse_endpoints(url, {})
    message = str(refused.value)
    assert message.startswith("store 'etcd") or message.startswith("store ' etcd")
    assert why in message
    assert message.isprintable()
    assert "s3" not in message
    assert "cret" not in message


@given(st.text(alphabet="etcd:/@,?#=&[]%.ah1 \n", max_size=25))
def test_no_url_makes_it_crash(rest: str) -> None:
    """A typing error would end in a traceback."""
    try:
        found, access = parse_endpoints(f"etcd://{rest}", {})
    except ConfigError:
        return
    assert all(str(endpoint).isprintable() for endpoint in found)
    assert access.prefix.startswith("/")
    assert ".." not in access.prefix.split("/")


def test_an_access_keeps_its_password_to_itself() -> None:
    """A traceback or a debug line would tell it."""
    assert "s3cret" not in repr(Access(user="u", password="s3cret"))


# which store


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("etcd://h", Etcd3Store),
        ("etcds://h", Etcd3Store),
        ("etcd2://h", Etcd2Store),
        ("Etcd2S://h", Etcd2Store),
        ("sqlite:///tmp/b.db", SqliteStore),
        ("SQLITE:///a%20b%23.db", SqliteStore),
    ],
)
def test_the_scheme_names_the_store(url: str, kind: type) -> None:
    """Nodes would meet in a store that does not know them."""
    store = open_store(url, Stop(), {})
    assert type(store) is kind
    store.close()


@pytest.mark.parametrize(
    "url",
    ["", " ", "h:2379", "http://h:2379", "consul://h", "dynamo", "x s3:p@h", "\x1b[2J"],
)
def test_an_unknown_store_is_an_error(url: str) -> None:
    """A lease that is not shared is worse than none."""
    with pytest.raises(ConfigError, match=r"unknown store .* use etcd://") as refused:
        open_store(url, Stop(), {"ETCDCTL_ENDPOINTS": "h:1"})
    assert str(refused.value).isprintable()


def test_an_unknown_store_keeps_its_password() -> None:
    """The error would tell it."""
    with pytest.raises(ConfigError, match=r"'redis://u:\*\*\*@h'"):
        open_store("redis://u:s3cret@h", Stop(), {})


@pytest.mark.parametrize("url", NO_FILES)
def test_a_file_is_named_in_full(url: str) -> None:
    """Two units with different working directories would each have their own queue."""
    with pytest.raises(ConfigError, match="write sqlite:///DIRECTORY/FILE"):
        open_store(url, Stop(), {})


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    """acquire-lease would wait out its timeout."""
    with pytest.raises(ConfigError, match="that is a directory"):
        open_store(f"sqlite://{tmp_path}", Stop(), {})


# the default store


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"ETCDCTL_ENDPOINTS": "h"}, "etcd://h"),
        ({"ETCDCTL_ENDPOINTS": " h1:1 , h2:2 "}, "etcd://h1:1,h2:2"),
        ({"ETCDCTL_ENDPOINTS": "http://h1:1/,http://h2:2/"}, "etcd://h1:1,h2:2"),
        ({"ETCDCTL_ENDPOINTS": "https://h1:1,https://h2"}, "etcds://h1:1,h2"),
        ({"ETCDCTL_ENDPOINTS": "HTTPS://h1:1"}, "etcds://h1:1"),
        ({"ETCDCTL_ENDPOINTS": "h", "ETCDCTL_CACERT": "/ca"}, "etcds://h"),
        ({"ETCDCTL_ENDPOINTS": "h", "ETCDCTL_CERT": "/c"}, "etcds://h"),
        ({"ETCDCTL_ENDPOINTS": "http://h", "ETCDCTL_CACERT": "/ca"}, "etcd://h"),
        ({"ETCDCTL_ENDPOINTS": ""}, "etcd://127.0.0.1:2379"),
        ({"ETCDCTL_ENDPOINTS": " "}, "etcd://127.0.0.1:2379"),
        ({"ETCDCTL_CACERT": "/ca"}, "etcds://127.0.0.1:2379"),
        ({"ETCDCTL_ENDPOINTS": "", "ETCDCTL_CERT": "/c"}, "etcds://127.0.0.1:2379"),
        ({}, "etcd://127.0.0.1:2379"),
    ],
)
def test_the_default_store_is_etcdctls(
    environ: dict[str, str], url: str, tmp_path: Path
) -> None:
    """What works with etcdctl would not work with us."""
    assert default_url(environ, tmp_path) == url


@pytest.mark.parametrize(
    "listed", ["http://h,https://h", "unix:///run/etcd.sock", "ftp://u:s3cret@h"]
)
def test_endpoints_that_do_not_go_together(listed: str) -> None:
    """Some members would be spoken to in the clear."""
    with pytest.raises(ConfigError, match="is not all http:// or https://") as refused:
        default_url({"ETCDCTL_ENDPOINTS": listed})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("listed", [",", "h,", "http://", "h:0", "h#"])
def test_bad_endpoints_name_their_variable(listed: str) -> None:
    """The error would speak of a --store that nobody has given."""
    with pytest.raises(ConfigError, match="from the ETCDCTL_ variables: store 'etcd"):
        open_store(None, Stop(), {"ETCDCTL_ENDPOINTS": listed})


ROUTE = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWin\tIRTT\n"
)
LOCAL = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
GATEWAY = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
DIRECT = "wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv", None])
@pytest.mark.parametrize(
    ("routes", "gateway"),
    [
        (ROUTE + GATEWAY, "172.17.0.1"),
        (ROUTE + LOCAL + GATEWAY, "172.17.0.1"),
        (ROUTE + DIRECT + GATEWAY, "172.17.0.1"),
        (ROUTE + LOCAL + DIRECT, "127.0.0.1"),
        (ROUTE, "127.0.0.1"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_a_container_finds_the_etcd_of_its_host(
    tmp_path: Path, mark: str | None, routes: str | None, gateway: str
) -> None:
    """`docker run` without options would look for etcd inside the container."""
    (tmp_path / "run").mkdir()
    (tmp_path / "proc/net").mkdir(parents=True)
    if mark:
        (tmp_path / mark).touch()
    if routes is not None:
        (tmp_path / "proc/net/route").write_text(routes)
    expected = gateway if mark else "127.0.0.1"
    assert default_url({}, tmp_path) == f"etcd://{expected}:2379"


def test_without_proc_the_gateway_is_not_guessed(tmp_path: Path) -> None:
    """An etcd inside the container would be asked, and the lease shared with nobody."""
    assert default_url({}, tmp_path) == "etcd://127.0.0.1:2379"
    (tmp_path / ".dockerenv").touch()
    with pytest.raises(LocalLack, match="no /proc/net here: name the store with"):
        default_url({}, tmp_path)
    assert default_url({"ETCDCTL_ENDPOINTS": "h:1"}, tmp_path) == "etcd://h:1"


# failing over

ONE, TWO, THREE = (Endpoint("http", f"h{n}", 2379) for n in (1, 2, 3))
Clock = list[float]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the test say what time it is."""
    time = [1000.0]
    monkeypatch.setattr(endpoints, "now", lambda: time[0])
    return time


def test_a_black_hole_leaves_time_for_the_others(clock: Clock) -> None:
    """One dead member would make the whole cluster useless."""
    shares: list[tuple[Endpoint, float]] = []

    def ask(endpoint: Endpoint, share: float) -> str:
        shares.append((endpoint, share))
        if endpoint is THREE:
            return "answer"
        clock[0] += share
        raise StoreUnavailable("no answer in time")

    failover = Failover([ONE, TWO, THREE])
    assert failover.call(ask, 6.0) == "answer"
    assert shares == [(ONE, 2.0), (TWO, 2.0), (THREE, 2.0)]
    assert failover.current is THREE


def test_who_fails_fast_leaves_its_share(clock: Clock) -> None:
    """A slow member would be cut off although there is time."""
    shares = []

    def ask(endpoint: Endpoint, share: float) -> str:
        shares.append(share)
        if endpoint is ONE:
            raise StoreUnavailable("connection refused")
        return "answer"

    Failover([ONE, TWO]).call(ask, 6.0)
    assert shares == [3.0, 6.0]


def test_the_last_good_endpoint_comes_first(clock: Clock) -> None:
    """Every call would first try the dead member."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        if endpoint is ONE:
            raise StoreUnavailable("connection refused")
        return "answer"

    failover = Failover([ONE, TWO])
    failover.call(ask, 6.0)
    failover.call(ask, 6.0)
    assert asked == [ONE, TWO, TWO]


def test_who_used_up_its_time_is_not_asked_first_again(clock: Clock) -> None:
    """A black hole would cost each call its share."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        clock[0] += 10.0
        raise StoreUnavailable("no answer in time")

    failover = Failover([ONE, TWO, THREE])
    assert failover.current is ONE
    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            failover.call(ask, 6.0)
    assert asked == [ONE, TWO, THREE, ONE]


def test_an_answer_is_not_asked_for_again(clock: Clock) -> None:
    """A refusal would be sent to each member in turn, and counted as an outage."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        raise StoreRefused("permission denied")

    with pytest.raises(StoreRefused):
        Failover([ONE, TWO]).call(ask, 6.0)
    assert asked == [ONE]


def test_tells_what_each_one_said(clock: Clock) -> None:
    """Nobody would know which member is at fault."""

    def ask(endpoint: Endpoint, share: float) -> str:
        raise StoreUnavailable("refused" if endpoint is ONE else "not found")

    with pytest.raises(StoreUnavailable) as failed:
        Failover([ONE, TWO]).call(ask, 6.0)
    assert str(failed.value) == "http://h1:2379: refused; http://h2:2379: not found"


def test_an_overrun_costs_the_others_not_the_caller(clock: Clock) -> None:
    """A call would last longer than its deadline."""
    asked = []

    def ask(endpoint: Endpoint, share: float) -> str:
        asked.append(endpoint)
        clock[0] += 10.0
        raise StoreUnavailable("no answer in time")

    with pytest.raises(StoreUnavailable, match="no answer in time"):
        Failover([ONE, TWO]).call(ask, 6.0)
    assert asked == [ONE]
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        Failover([ONE]).call(ask, 0.0)
    assert asked == [ONE]


# the address that reaches the store


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve addresses only: no test asks a name server."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **settings: object) -> object:
        if host == NO_NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_finds_the_address_that_reaches_the_store(
    host: str, resolve: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The others would be told a wrong address, or a useless one without a word."""
    if host == "[::1]" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    found = Failover([Endpoint("http", host, 2379)]).local_address(HANG, Stop())
    assert found == host.strip("[]")
    assert "name this host with --host" in caplog.text


def test_another_address_is_no_matter_for_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each start of a good setup would be followed by a warning."""
    monkeypatch.setattr(endpoints, "local_address", lambda *_: "10.0.0.7")
    with caplog.at_level(logging.INFO):
        assert Failover([ONE]).local_address(HANG, Stop()) == "10.0.0.7"
    assert caplog.text == ""


def test_a_dead_name_is_no_reason_to_give_up(resolve: None) -> None:
    """One member that left DNS would keep the nodes from starting."""
    endpoints = [Endpoint("http", NO_NAME, 1), Endpoint("http", "127.0.0.1", 1)]
    assert Failover(endpoints).local_address(HANG, Stop()) == "127.0.0.1"


def test_a_name_server_that_hangs_is_no_reason_to_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`watch` would publish nothing for as long as the first name cannot be asked."""
    release, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        if host == NO_NAME:
            release.wait(HANG)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    endpoints = [Endpoint("http", NO_NAME, 1), Endpoint("http", "127.0.0.1", 1)]
    failover, begun = Failover(endpoints), now()
    assert failover.local_address(1, Stop()) == "127.0.0.1"
    assert 0.4 < now() - begun < HANG / 2
    assert failover.current == endpoints[1]
    release.set()


def test_says_what_to_do_without_a_route(resolve: None) -> None:
    """The operator would not know that --host helps."""
    with pytest.raises(StoreUnavailable, match=r"host name not found.* with --host"):
        Failover([Endpoint("http", NO_NAME, 1)]).local_address(HANG, Stop())

"""Which store a URL names, and which one is meant without a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from service_monitor.errors import ConfigError, LocalLack
from service_monitor.net.calls import Bounds
from service_monitor.stores.etcd.endpoints import default_url
from service_monitor.stores.etcd.v2 import Etcd2Store
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.stores.opening import open_store
from service_monitor.stores.sqlite.store import SqliteStore

NO_FILES = ["sqlite:", "sqlite://", "sqlite:///", "sqlite://x.db", "sqlite:x.db"]
NO_FILES += ["sqlite:/x.db", "sqlite:///d/", "sqlite:///x?y", "sqlite:///x#y"]
NO_FILES += ["sqlite:///x%00y", "sqlite:///x\n", "sqlite://h/x.db"]


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
    store = open_store(url, Bounds(), {})
    assert type(store) is kind
    store.close()


@pytest.mark.parametrize(
    "url",
    ["", " ", "h:2379", "http://h:2379", "consul://h", "dynamo", "x s3:p@h", "\x1b[2J"],
)
def test_an_unknown_store_is_an_error(url: str) -> None:
    """A lease that is not shared is worse than none."""
    with pytest.raises(ConfigError, match=r"unknown store .* use etcd://") as refused:
        open_store(url, Bounds(), {"ETCDCTL_ENDPOINTS": "h:1"})
    assert str(refused.value).isprintable()


def test_an_unknown_store_keeps_its_password() -> None:
    """The error would tell it."""
    with pytest.raises(ConfigError, match=r"'redis://u:\*\*\*@h'"):
        open_store("redis://u:s3cret@h", Bounds(), {})


@pytest.mark.parametrize("url", NO_FILES)
def test_a_file_is_named_in_full(url: str) -> None:
    """Two units with different working directories would each have their own queue."""
    with pytest.raises(ConfigError, match="write sqlite:///DIRECTORY/FILE"):
        open_store(url, Bounds(), {})


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    """acquire-lease would wait out its timeout."""
    with pytest.raises(ConfigError, match="that is a directory"):
        open_store(f"sqlite://{tmp_path}", Bounds(), {})


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
        open_store(None, Bounds(), {"ETCDCTL_ENDPOINTS": listed})


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

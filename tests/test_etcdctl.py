"""What etcdctl would follow and we do not: said, and never left aside."""

from __future__ import annotations

import pytest

from integration.support.commands import WATCH, Run, error_of
from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.stores.opening import open_store

UNREAD = {
    "ETCDCTL_DISCOVERY_SRV": ("example.com", "set ETCDCTL_ENDPOINTS=HOST:2379"),
    "ETCDCTL_DISCOVERY_SRV_NAME": ("x", "set ETCDCTL_ENDPOINTS=HOST:2379"),
    "ETCDCTL_ENDPOINT": ("http://h:1", "set ETCDCTL_ENDPOINTS instead"),
    "ETCDCTL_PEERS": ("http://h:1", "set ETCDCTL_ENDPOINTS instead"),
    "ETCDCTL_CA_FILE": ("/ca", "set ETCDCTL_CACERT instead"),
    "ETCDCTL_CERT_FILE": ("/cert", "set ETCDCTL_CERT instead"),
    "ETCDCTL_KEY_FILE": ("/key", "set ETCDCTL_KEY instead"),
    "ETCDCTL_USERNAME": ("root:s3cret", "set ETCDCTL_USER instead"),
    "ETCDCTL_AUTH_JWT_TOKEN": ("s3cret", "set ETCDCTL_USER and ETCDCTL_PASSWORD"),
    "ETCDCTL_INSECURE_SKIP_TLS_VERIFY": ("true", "set ETCDCTL_CACERT=FILE"),
    "ETCDCTL_INSECURE_TRANSPORT": ("false", "set https:// in ETCDCTL_ENDPOINTS"),
    "ETCDCTL_API": ("2", "set SERVICE_MONITOR_STORE=etcd2://HOST:2379"),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize(
    "argv",
    [["hosts", "--label=es"], ["acquire-lease", "--label=es"], WATCH, ["init-store"]],
    ids=lambda argv: argv[0],
)
def test_what_names_another_store_is_refused(
    run: Run, name: str, argv: list[str]
) -> None:
    """The default store would be asked: a lease that nobody shares."""
    value, instead = UNREAD[name]
    outcome = run(*argv, env={"SERVICE_MONITOR_STORE": "", name: value})
    assert outcome.code == 2
    error = error_of(outcome)
    assert error.startswith(f"from the ETCDCTL_ variables: {name} is set, ")
    assert instead in error
    assert "or name the store with --store" in error


def opened(url: str | None, **environ: str) -> None:
    variables = {f"ETCDCTL_{name}": value for name, value in environ.items()}
    open_store(url, Bounds(), variables).close()


def test_a_store_that_is_named_needs_none_of_them() -> None:
    """A machine set up for etcdctl could not name the store in our own words."""
    everything = {name[8:]: value for name, (value, _) in UNREAD.items()}
    opened("etcd://h:2379", **everything)
    with pytest.raises(ConfigError):
        opened(None, **everything)


def test_what_changes_nothing_is_no_reason_to_refuse() -> None:
    """Settings that etcdctl itself has by default would stop every command."""
    opened(None, API="3", INSECURE_SKIP_TLS_VERIFY="false", INSECURE_TRANSPORT="true")
    opened(None, DISCOVERY_SRV="", ENDPOINT=" ", WRITE_OUT="json", DIAL_TIMEOUT="3s")
    opened(None, ENDPOINTS="h:1", ENDPOINT="h:2", PEERS="h:3")
    opened(None, ENDPOINTS="https://h:1", INSECURE_TRANSPORT="false")
    with pytest.raises(ConfigError, match="ETCDCTL_DISCOVERY_SRV"):  # it goes first
        opened(None, ENDPOINTS="h:1", DISCOVERY_SRV="example.com")


@pytest.mark.parametrize("name", ["ENDPOINTS", "CACERT", "CERT", "KEY", "USER"])
@pytest.mark.parametrize(
    "value",
    ['"s3cret"', "'s3cret'", "\u201cs3cret\u201d", "s3cret\r", '"https://s3cret"'],
)
@pytest.mark.parametrize("url", [None, "etcds://h:2379", "etcd2s://h:2379"])
def test_quotes_are_refused_here_too(name: str, value: str, url: str | None) -> None:
    """A user called "root" in quotes would be refused by etcd for a wrong password."""
    if url is not None or name != "ENDPOINTS":
        environ = {"ENDPOINTS": "https://h"} | {name: value}
        with pytest.raises(ConfigError, match=f"ETCDCTL_{name} is in quotes") as error:
            opened(url, **environ)
        assert "s3cret" not in str(error.value)

"""What a dynamodb:// URL names, and the settings that AWS brings."""

from __future__ import annotations

import importlib
import sys

import pytest

from integration.support.commands import Run
from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import Place, parse_place
from service_monitor.stores.dynamodb.store import DynamoStore
from service_monitor.stores.opening import open_store


def test_a_url_names_table_prefix_and_place() -> None:
    """Two clusters would meet in one queue, or one cluster in two."""
    assert parse_place("dynamodb://nodes") == Place("nodes")
    full = "DynamoDB://a.b-c_D/team/x?region=eu-west-1&endpoint=http://h:8000&profile=p"
    assert parse_place(full) == Place(
        "a.b-c_D", "/team/x", "eu-west-1", "http://h:8000", "p"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dynamodb://", "does not read as"),
        ("dynamodb:es-table", "does not read as"),
        ("dynamodb://ab", "3 to 255"),
        ("dynamodb://a b c", "does not read as"),
        ("dynamodb://täble", "does not read as"),
        ("dynamodb://user:pass@table", "does not read as"),
        ("dynamodb://table/../x", "does not read as"),
        ("dynamodb://table/a//b", "does not read as"),
        ("dynamodb://table#frag", "does not read as"),
        ("dynamodb://table?colour=red", "unknown option 'colour'"),
        ("dynamodb://table?region=", "needs region once"),
        ("dynamodb://table?region=a&region=b", "needs region once"),
        ("dynamodb://table?region=eu_west", "names no region"),
        ("dynamodb://table?endpoint=h:8000", "https://HOST"),
        ("dynamodb://table?endpoint=ftp://h", "https://HOST"),
        ("dynamodb://table?endpoint=http://h:0", "https://HOST"),
        ("dynamodb://table?endpoint=http://h/path", "https://HOST"),
        ("dynamodb://table?endpoint=http://[::1", "https://HOST"),
    ],
)
def test_a_wrong_url_is_told_at_once(run: Run, url: str, says: str) -> None:
    """A typing error would be looked for in AWS."""
    code, out, err = run("hosts", "--label=es", "--store", url)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_missing_region_is_a_usage_error(run: Run) -> None:
    """The store would be taken to be down."""
    code, _, err = run("status", "--store=dynamodb://table")
    assert (code, err.count("\n")) == (2, 1)
    assert "?region=" in err
    assert "AWS_REGION" in err


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A container on ECS, which sets AWS_REGION, would have to be told again."""
    monkeypatch.setenv(variable, "ap-south-1")
    store = DynamoStore(Place("table"), Bounds())
    assert store._aws.endpoint().host == "dynamodb.ap-south-1.amazonaws.com"
    assert store._aws.where == "table table in ap-south-1"
    store.close()


def test_an_unknown_profile_is_a_usage_error(run: Run) -> None:
    """botocore's traceback would be the answer."""
    code, _, err = run("status", "--store=dynamodb://table?region=eu-west-1&profile=no")
    assert (code, err.count("\n")) == (2, 1)
    assert "(no) could not be found" in err


def test_boto3_that_is_not_there_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever installed without the extra would see an ImportError."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "service_monitor.stores.dynamodb.store")
    monkeypatch.delitem(sys.modules, "service_monitor.stores.dynamodb.aws")
    with pytest.raises(
        ConfigError, match=r"pip install 'service-monitor-lease\[dynamodb\]'"
    ):
        open_store("dynamodb://table?region=eu-west-1", Bounds(), {})


def test_boto3_is_imported_for_its_own_urls_alone(run: Run) -> None:
    """Everybody would wait 0.3 s longer, and need boto3, for what few use."""
    code = "import sys, service_monitor.cli.app as c; c.main(['hosts', '--label=es'])"
    code += "; assert not any(m.startswith('boto') for m in sys.modules)"
    importlib.import_module("subprocess").run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={"SERVICE_MONITOR_STORE": "sqlite:///no/such/directory/x.db"},
    )


def test_missing_credentials_are_one_line(run: Run) -> None:
    """A host without its role would end in a traceback."""
    code, out, err = run("status", "--store=dynamodb://table?region=eu-west-1")
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert "the store refuses us: table table in eu-west-1: Unable to locate" in err


def test_nobody_there_is_unavailable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason would be botocore's, which leaves out what happened."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    url = "dynamodb://table?region=eu-west-1&endpoint=http://127.0.0.1:1"
    code, out, err = run("status", "--store", url)
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert "http://127.0.0.1:1: connection refused" in err

"""Making the table that a DynamoDB store needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from integration.support.commands import Run
from integration.support.stubbed_dynamodb import StubbedService
from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import Aws
from service_monitor.stores.dynamodb.table import init_table

KEYS = {"label": "HASH", "key": "RANGE"}
ACTIVE: dict[str, Any] = {
    "TableStatus": "ACTIVE",
    "KeySchema": [{"AttributeName": n, "KeyType": kind} for n, kind in KEYS.items()],
    "AttributeDefinitions": [{"AttributeName": n, "AttributeType": "S"} for n in KEYS],
}
DISABLED = {"TimeToLiveStatus": "DISABLED"}
BY_LITTER = {"TimeToLiveStatus": "ENABLED", "AttributeName": "litter_after"}


@pytest.fixture
def init(
    dynamo: StubbedService, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """Give a function that makes the table of the service."""
    monkeypatch.setattr(Aws, "_connect", lambda _: dynamo._client)
    monkeypatch.setattr("service_monitor.stores.dynamodb.table._LOOK", 0.0)
    return lambda: init_table("dynamodb://nodes?region=eu-central-1", Bounds())


def test_a_table_that_another_one_makes_meanwhile_will_do(
    dynamo: StubbedService, init: Callable[[], list[str]]
) -> None:
    """Of hosts that all run `init-store` at their first boot all but one would fail."""
    dynamo.refuses("describe_table", "ResourceNotFoundException")
    dynamo.refuses("create_table", "ResourceInUseException", "Table already exists")
    dynamo.gives("describe_table", Table=ACTIVE | {"TableStatus": "CREATING"})
    dynamo.gives("describe_table", Table=ACTIVE)
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    dynamo.refuses("update_time_to_live", "ValidationException", "already enabled")
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=BY_LITTER)
    assert len(init()) == 2


def test_a_table_that_is_being_made_is_waited_for(
    dynamo: StubbedService, init: Callable[[], list[str]]
) -> None:
    """The next line of a script would find no table."""
    for state in "CREATING", "CREATING", "ACTIVE":
        dynamo.gives("describe_table", Table=ACTIVE | {"TableStatus": state})
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=BY_LITTER)
    assert init() == []


def test_a_table_that_is_being_deleted_is_told(
    dynamo: StubbedService, init: Callable[[], list[str]]
) -> None:
    """It would pass for ready, and be gone a moment later."""
    dynamo.gives("describe_table", Table=ACTIVE | {"TableStatus": "DELETING"})
    with pytest.raises(StoreUnavailable, match="is being deleted"):
        init()


def test_a_time_to_live_by_something_else_is_told(
    dynamo: StubbedService, init: Callable[[], list[str]]
) -> None:
    """Dead items would stay for ever, in a table that counts as ready."""
    dynamo.gives("describe_table", Table=ACTIVE)
    dynamo.gives("describe_table", Table=ACTIVE)
    other = BY_LITTER | {"AttributeName": "ends"}
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=other)
    with pytest.raises(StoreRefused, match="by ends, not litter_after"):
        init()


def test_a_refused_time_to_live_is_told(
    dynamo: StubbedService, init: Callable[[], list[str]]
) -> None:
    """A missing right would pass for a table that is ready."""
    dynamo.gives("describe_table", Table=ACTIVE)
    dynamo.gives("describe_table", Table=ACTIVE)
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    dynamo.refuses("update_time_to_live", "AccessDeniedException", "not authorized")
    dynamo.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    with pytest.raises(StoreRefused, match="not authorized"):
        init()


def test_init_store_of_other_stores_has_nothing_to_do(run: Run) -> None:
    """One line of provisioning could not serve all of a team's stores."""
    for url in "etcd://h", "etcd2s://h", "sqlite:///tmp/x.db":
        code, out, err = run("init-store", "--store", url)
        assert (code, out, err) == (0, "nothing to make: this store is ready\n", "")
    assert run("init-store", "--store=ftp://h").code == 2
    assert run("init-store", "--store=dynamodb://nodes").code == 2

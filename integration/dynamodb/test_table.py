"""The table of a DynamoDB store: its making, and tables that are none."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.dynamodb.clients import plain
from integration.faults.processes import Commands
from integration.support.store_contract import HANG
from service_monitor.cli.app import main
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import parse_place
from service_monitor.stores.dynamodb.table import init_table


def command(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command in this process; errors have to be one line."""
    code = main(argv)
    out, err = capsys.readouterr()
    assert err.count("\n") == (1 if code else 0), err
    return code, out, err


def test_init_store_makes_the_table_once(
    new_table: str, asked: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Provisioning would fail at its second run, or leave dead items for ever."""
    place = parse_place(new_table)
    init = ("init-store", "--store", new_table)
    code, planned, _ = command(*init, "--dry-run", capsys=capsys)
    assert code == 0
    assert f"would make table {place.table} in " in planned
    assert ": keys label and key" in planned
    assert "would make" in planned.splitlines()[1]
    assert set(asked) == {"describe_table", "transact_write_items"}  # of conditions
    code, made, _ = command(*init, capsys=capsys)
    assert (code, made) == (0, planned.replace("would make", "made"))
    again = command(*init, capsys=capsys)
    assert again == (0, "nothing to make: this store is ready\n", "")
    client, name = plain(place), {"TableName": place.table}
    table = client.describe_table(**name)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    ttl = client.describe_time_to_live(**name)["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] in ("ENABLING", "ENABLED")
    assert ttl["AttributeName"] == "litter_after"
    backups = client.describe_continuous_backups(**name)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "DISABLED"


def test_init_store_on_many_hosts_at_once(new_table: str) -> None:
    """Of hosts that all run it at their first boot all but one would fail."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: init_table(new_table, Bounds()), range(4)))
    assert init_table(new_table, Bounds()) == []


def test_a_missing_table_says_how_to_make_it(
    new_table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first try of every new user would end in a riddle."""
    options = ("--label=es", "--store", new_table)
    code, out, err = command("hosts", *options, capsys=capsys)
    assert (code, out) == (69, "")
    assert f"table {parse_place(new_table).table} in " in err
    assert "does not exist: `service-monitor init-store` makes it" in err


def test_another_table_is_left_alone(
    new_table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody's data would get our records mixed in, or a traceback come of it."""
    place = parse_place(new_table)
    client = plain(place)
    client.create_table(
        TableName=place.table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=place.table)
    store = ("--store", new_table)
    code, _, err = command("init-store", *store, capsys=capsys)
    assert code == 69
    assert "has other keys than label and key" in err
    code, _, err = command("hosts", "--label=es", *store, capsys=capsys)
    assert code == 69
    assert "was not made by `service-monitor init-store`" in err


def test_a_table_that_vanishes_is_waited_for(new_table: str, label: str) -> None:
    """A restart of an emulator, or a mistake in AWS, would end every node's start."""
    init_table(new_table, Bounds())
    with Commands(new_table, label) as run:
        holder = run("acquire-lease", "--service-id=a", "--host=a")
        assert holder.wait() == 0
        waiter = run("acquire-lease", "--service-id=b", "--host=b")
        waiter.wait_said("waiting, position 1", HANG)
        place = parse_place(new_table)
        plain(place).delete_table(TableName=place.table)
        waiter.wait_said("does not exist", HANG)
        init_table(new_table, Bounds())
        assert waiter.wait() == 0
        assert "our ticket expired" in waiter.stderr

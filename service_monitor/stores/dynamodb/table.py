"""The table that a DynamoDB store needs: what it has to be, and making it."""

from __future__ import annotations

from collections.abc import Iterator

from service_monitor.errors import (
    LocalLack,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import Aws, Call, parse_place
from service_monitor.stores.dynamodb.store import PARTITION, SORT, TTL
from service_monitor.stores.dynamodb.transactions import ask
from service_monitor.timing import now

READY = 120.0
"""Seconds for AWS to have the table ready; it takes some ten."""
_LOOK = 1.0

_SCHEMA = [
    {"AttributeName": PARTITION, "KeyType": "HASH"},
    {"AttributeName": SORT, "KeyType": "RANGE"},
]
_TYPES = [
    {"AttributeName": PARTITION, "AttributeType": "S"},
    {"AttributeName": SORT, "AttributeType": "S"},
]


def init_table(url: str, bounds: Bounds, *, dry_run: bool = False) -> list[str]:
    """Make the table of a URL, as far as it is not there; return what was done.

    With `dry_run` only what would be. Raises `ConfigError`; and `StoreError` or
    `LocalLack`, which say what was made all the same.
    """
    place = parse_place(url)
    aws = Aws(place, bounds)
    done: list[str] = []
    try:
        for step in _Table(aws, place.table, bounds, dry_run=dry_run).steps():
            done.append(step)
    except (StoreError, LocalLack) as error:
        made = "; ".join(done) if done and not dry_run else "nothing"
        raise type(error)(f"{error}. Made so far: {made}") from error
    finally:
        aws.close()
    return done


class _Table:
    """The steps to a table; each is said once it is taken."""

    def __init__(self, aws: Aws, name: str, bounds: Bounds, *, dry_run: bool) -> None:
        self._aws = aws
        self._name = {"TableName": name}
        self._bounds = bounds
        self._dry_run = dry_run

    def steps(self) -> Iterator[str]:
        aws = self._aws
        counter = {PARTITION: {"S": "#"}, SORT: {"S": "counter"}}
        ask(aws.begin(), self._name | {"Key": counter})
        table = _describe(aws.begin(), self._name)
        if table is not None and table["TableStatus"] == "DELETING":
            raise StoreUnavailable(
                f"{aws.where} is being deleted: try again in a while"
            )
        if table is None:
            if not self._dry_run:
                self._create()
            yield (
                f"{aws.where}: keys {PARTITION} and {SORT}, billed on demand, "
                "without point-in-time recovery"
            )
            if self._dry_run:
                yield _cleaned_up(aws)
                return
        if not self._dry_run:
            table = _await_active(aws, self._name, self._bounds)
        if table is None or _wrong(table):
            raise StoreRefused(
                f"{aws.where} is there already, and has other keys than {PARTITION} "
                f"and {SORT}, both strings: name another table"
            )
        try:
            if not _is_cleaned_up(aws, self._name):
                if not self._dry_run:
                    _clean_up(aws, self._name)
                yield _cleaned_up(aws)
        except (StoreError, LocalLack) as error:
            missing = f"not made: {_cleaned_up(aws)}"
            raise type(error)(f"{error}; {missing}") from error

    def _create(self) -> None:
        self._aws.begin()(
            "create_table",
            missing="ResourceInUseException",  # another one made it meanwhile
            **self._name,
            KeySchema=_SCHEMA,
            AttributeDefinitions=_TYPES,
            BillingMode="PAY_PER_REQUEST",
        )


def _cleaned_up(aws: Aws) -> str:
    return f"{aws.where}: time to live by {TTL}"


def _is_cleaned_up(aws: Aws, name: dict[str, str]) -> bool:
    found = aws.begin()("describe_time_to_live", **name)["TimeToLiveDescription"]
    if found["TimeToLiveStatus"] not in ("ENABLED", "ENABLING"):
        return False
    if found["AttributeName"] != TTL:
        raise StoreRefused(
            f"{aws.where} has its time to live by {found['AttributeName']}, not "
            f"{TTL}: name another table, or switch that off"
        )
    return True


def _clean_up(aws: Aws, name: dict[str, str]) -> None:
    wanted = {"AttributeName": TTL, "Enabled": True}
    try:
        aws.begin()("update_time_to_live", **name, TimeToLiveSpecification=wanted)
    except StoreRefused:  # also if it is enabled already, by another one meanwhile
        if not _is_cleaned_up(aws, name):
            raise


def _describe(call: Call, name: dict[str, str]) -> dict[str, object] | None:
    found = call("describe_table", missing="ResourceNotFoundException", **name)
    table: dict[str, object] | None = found.get("Table")
    return table


def _wrong(table: dict[str, object]) -> bool:
    def listed(key: str) -> list[tuple[tuple[str, str], ...]]:
        entries = table[key]
        assert isinstance(entries, list)
        return sorted(tuple(sorted(entry.items())) for entry in entries)

    wanted = [tuple(sorted(entry.items())) for entry in _TYPES]
    keys = [tuple(sorted(entry.items())) for entry in _SCHEMA]
    types = listed("AttributeDefinitions")
    return listed("KeySchema") != sorted(keys) or not set(wanted) <= set(types)


def _await_active(aws: Aws, name: dict[str, str], bounds: Bounds) -> dict[str, object]:
    deadline = now() + READY
    while True:
        table = _describe(aws.begin(), name)
        if table is not None and table["TableStatus"] in ("ACTIVE", "UPDATING"):
            return table
        if now() >= deadline:
            raise StoreUnavailable(f"{aws.where} is not ready after {READY:g} s")
        bounds.stop.wait(_LOOK)
        bounds.stop.check()

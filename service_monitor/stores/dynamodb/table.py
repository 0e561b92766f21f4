"""The table that a DynamoDB store needs: what it has to be, and making it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service_monitor.errors import (
    LocalLack,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.dynamodb.aws import Aws
from service_monitor.stores.dynamodb.exchange import Exchange
from service_monitor.stores.dynamodb.items import PARTITION, SORT, TTL
from service_monitor.stores.dynamodb.place import DynamoPlace
from service_monitor.stores.dynamodb.transactions import require_transactions
from service_monitor.stores.primitive import primitive
from service_monitor.timing import now

READY = 120.0
"""Seconds for AWS to have the table ready; it takes some ten."""
LOOK = 1.0
"""Seconds between two looks whether it is."""

_SCHEMA = [
    {"AttributeName": PARTITION, "KeyType": "HASH"},
    {"AttributeName": SORT, "KeyType": "RANGE"},
]
_TYPES = [
    {"AttributeName": PARTITION, "AttributeType": "S"},
    {"AttributeName": SORT, "AttributeType": "S"},
]


def init_table(
    place: DynamoPlace,
    bounds: Bounds,
    *,
    dry_run: bool = False,
    look: float = LOOK,
    call_timeout: float = CALL_TIMEOUT,
) -> list[str]:
    """Make the table of a place, as far as it is not there; return what was done.

    With `dry_run` only what would be. Blocks until the table is ready, up to `READY`
    seconds, and looks every `look` seconds; each step has `call_timeout` seconds.
    Raises `ConfigError` and `Stopped`; and `StoreError` or `LocalLack`, which say what
    was made all the same.
    """
    aws = Aws(place, bounds)
    done: list[str] = []
    table = _Table(aws, place.table, bounds, look, call_timeout)
    try:
        for step in table.steps(dry_run=dry_run):
            done.append(step)
    except (StoreError, LocalLack) as error:
        made = "; ".join(done) if done and not dry_run else "nothing"
        raise type(error)(f"{error}. Made so far: {made}") from error
    finally:
        aws.close()
    return done


class _Table:
    """The steps to a table; each is named once it is taken."""

    def __init__(
        self, aws: Aws, name: str, bounds: Bounds, look: float, call_timeout: float
    ) -> None:
        self._aws = aws
        self._name = {"TableName": name}
        self._bounds = bounds
        self._call_timeout = call_timeout
        self._look = look

    def steps(self, *, dry_run: bool) -> Iterator[str]:
        where = self._aws.where
        self._check_transactions()
        table = self._describe()
        if table is not None and table.get("TableStatus") == "DELETING":
            raise StoreUnavailable(f"{where} is being deleted: try again in a while")
        if table is None:
            if not dry_run:
                self._create()
            yield (
                f"{where}: keys {PARTITION} and {SORT}, billed on demand, "
                "without point-in-time recovery"
            )
            if dry_run:
                yield self._cleaned_up
                return
        if not dry_run:
            table = self._await_active()
        if table is None or _has_other_keys(table):
            raise StoreRefused(
                f"{where} is there already, and has other keys than {PARTITION} "
                f"and {SORT}, both strings: name another table"
            )
        try:
            if not self._is_cleaned_up():
                if not dry_run:
                    self._clean_up()
                yield self._cleaned_up
        except (StoreError, LocalLack) as error:
            missing = f"not made: {self._cleaned_up}"
            raise type(error)(f"{error}; {missing}") from error

    @property
    def _cleaned_up(self) -> str:
        return f"{self._aws.where}: time to live by {TTL}"

    def _exchange(self) -> Exchange:
        return Exchange(self._aws, self._bounds)

    @primitive
    def _check_transactions(self) -> None:
        counter = {PARTITION: {"S": "#"}, SORT: {"S": "counter"}}
        require_transactions(self._exchange(), self._name | {"Key": counter})

    @primitive
    def _describe(self) -> dict[str, Any] | None:
        missing = "ResourceNotFoundException"
        found = self._exchange()("describe_table", missing=missing, **self._name)
        table: dict[str, Any] | None = found.get("Table")
        return table

    @primitive
    def _create(self) -> None:
        self._exchange()(
            "create_table",
            missing="ResourceInUseException",  # another one made it meanwhile
            **self._name,
            KeySchema=_SCHEMA,
            AttributeDefinitions=_TYPES,
            BillingMode="PAY_PER_REQUEST",
        )

    @primitive
    def _is_cleaned_up(self) -> bool:
        answer = self._exchange()("describe_time_to_live", **self._name)
        found = answer.get("TimeToLiveDescription", {})
        if found.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return False
        if (by := found.get("AttributeName")) != TTL:
            raise StoreRefused(
                f"{self._aws.where} has its time to live by {by}, not "
                f"{TTL}: name another table, or switch that off"
            )
        return True

    @primitive
    def _clean_up(self) -> None:
        wanted = {"AttributeName": TTL, "Enabled": True}
        try:
            self._exchange()(
                "update_time_to_live", **self._name, TimeToLiveSpecification=wanted
            )
        except StoreRefused:  # also if it is enabled already, by another one meanwhile
            if not self._is_cleaned_up():
                raise

    def _await_active(self) -> dict[str, Any]:
        deadline = now() + READY
        while True:
            table = self._describe()
            if table and table.get("TableStatus") in ("ACTIVE", "UPDATING"):
                return table
            if now() >= deadline:
                where = self._aws.where
                raise StoreUnavailable(f"{where} is not ready after {READY:g} s")
            self._bounds.stop.wait(self._look)
            self._bounds.stop.check()


def _has_other_keys(table: dict[str, Any]) -> bool:
    def listed(entries: list[dict[str, str]]) -> list[tuple[tuple[str, str], ...]]:
        return sorted(tuple(sorted(entry.items())) for entry in entries)

    keys = listed(table.get("KeySchema", []))
    types = listed(table.get("AttributeDefinitions", []))
    return keys != listed(_SCHEMA) or not set(listed(_TYPES)) <= set(types)

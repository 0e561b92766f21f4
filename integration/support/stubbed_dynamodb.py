"""A DynamoDB store whose service answers what a test says, through botocore's stub."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

from botocore.stub import Stubber

from service_monitor.net.calls import Bounds
from service_monitor.records import Record
from service_monitor.stores.dynamodb.aws import Place
from service_monitor.stores.dynamodb.store import DynamoStore

EPOCH = 1_800_000_000
RECORD = Record("es/lease/a", "v", 3, 4)
FAILED = {"Code": "ConditionalCheckFailed", "Message": "no"}
FINE = {"Code": "None"}


def item(
    value: str = "v", created: int = 3, version: int = 4, ends: float = 60
) -> dict[str, Any]:
    texts = {"label": "es", "key": "lease/a", "value": value}
    numbers = {"created": created, "version": version}
    numbers |= {"alive_until": EPOCH + ends - 2, "dead_after": EPOCH + ends}  # type: ignore[dict-item]
    typed: dict[str, Any] = {name: {"S": text} for name, text in texts.items()}
    return typed | {name: {"N": str(number)} for name, number in numbers.items()}


COUNTER = {"n": {"N": "4"}, "last_label": {"S": "es"}, "last_key": {"S": "lease/b"}}


class StubbedService:
    """The answers that DynamoDB is going to give, in this order."""

    def __init__(self, bounds: Bounds, prefix: str = "") -> None:
        self.bounds = bounds
        self.store = DynamoStore(Place("es", prefix, "eu-central-1"), bounds)
        self.store._transactions.known = True
        self._client = self.store._aws._connect()
        self.stub = Stubber(self._client)
        self.stub.activate()
        self.asked: list[dict[str, Any]] = []
        self._client.meta.events.register_first(
            "before-parameter-build.dynamodb",
            lambda params, **_: self.asked.append(params),
        )

    def _dated(self) -> dict[str, Any]:
        return {"HTTPHeaders": {"date": formatdate(EPOCH, usegmt=True)}}

    def gives(self, operation: str, **answer: Any) -> None:
        answer["ResponseMetadata"] = self._dated()
        self.stub.add_response(operation, answer)

    def finds(self, found: dict[str, Any] | None) -> None:
        self.gives("get_item", **({"Item": found} if found else {}))

    def refuses(
        self, operation: str, code: str, message: str = "no", status: int = 400
    ) -> None:
        self.stub.add_client_error(
            operation, code, message, status, response_meta=self._dated()
        )

    def cancels(self, *reasons: dict[str, str]) -> None:
        self.stub.add_client_error(
            "transact_write_items",
            "TransactionCanceledException",
            response_meta=self._dated(),
            modeled_fields={"CancellationReasons": list(reasons)},
        )

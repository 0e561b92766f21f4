"""A service that speaks DynamoDB's API, as far as a test lets it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import boto3  # noqa: F401  # now, and not within the bound of a test's first call

from integration.support.loopback import Serve, read_message, status

Answer = tuple[int, dict[str, Any]]
TABLE = {
    "TableStatus": "ACTIVE",
    "KeySchema": [
        {"AttributeName": "label", "KeyType": "HASH"},
        {"AttributeName": "key", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "label", "AttributeType": "S"},
        {"AttributeName": "key", "AttributeType": "S"},
    ],
}
NUMBER = {"n": {"N": "3"}}


def error(code: str, message: str = "", status: int = 400) -> Answer:
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return status, {"__type": kind, "message": message}


UNKNOWN = error("UnknownOperationException")
DENIED = error("AccessDeniedException", "User: arn is not authorized to perform: it")
NO_TABLE = error("ResourceNotFoundException", "Requested resource not found")


class WorkAlike:
    """The answers to each operation; what it has none for it does not know."""

    def __init__(self, serve: Serve) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer | Callable[[], Answer]] = {
            "Query": (200, {"Items": []}),
            "Scan": (200, {"Items": []}),
            "GetItem": (200, {}),
            "UpdateItem": (200, {}),
            "DescribeTable": (200, {"Table": TABLE}),
            "CreateTable": (200, {}),
        }
        self.server = serve(self._talk)
        self.url = f"dynamodb://nodes?region=r&endpoint={self.server.url[:-1]}"

    def _talk(self, connection: socket.socket) -> None:
        head, body = read_message(connection)
        target = head.lower().partition(b"x-amz-target: ")[2].split(b"\r\n")[0]
        asked = target.decode().rpartition(".")[2]
        (operation,) = (n for n in _OPERATIONS if n.lower() == asked)
        self.asked.append(operation)
        found = self.answers.get(operation, UNKNOWN)
        if operation == "GetItem" and b'"counter"' not in body:
            found = 200, {}
        code, said = found() if callable(found) else found
        headers = (
            f"Date: {formatdate(usegmt=True)}",
            "Content-Type: application/x-amz-json-1.0",
            "Connection: close",
        )
        connection.sendall(
            status(f"{code} X", *headers, body=json.dumps(said).encode())
        )


_OPERATIONS = (
    *("Query", "Scan", "GetItem", "UpdateItem", "DeleteItem", "PutItem"),
    *("TransactWriteItems", "TransactGetItems", "CreateTable", "DescribeTable"),
    *("DescribeTimeToLive", "UpdateTimeToLive"),
)

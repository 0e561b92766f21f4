"""Observe DynamoDB: the log that our server for tests keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from integration.history.observer import POLL, Key, Observer, read, split
from integration.history.recorder import Change
from integration.support.dynamodb import DynamoDB
from service_monitor.errors import StoreError
from service_monitor.net.calls import Bounds
from service_monitor.stores.dynamodb.aws import parse_place
from service_monitor.stores.opening import open_store


class DynamoObserver(Observer):
    """Reads the log of our DynamoDB server, which lets in one request at a time.

    What is out of time there is gone when somebody looks and deletes it: so we look.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        place = parse_place(url)
        self._table = place.table
        self._prefix = f"{place.prefix}/".lstrip("/")
        endpoint = urlsplit(place.endpoint or "")
        self._server = DynamoDB(endpoint.port or 0, str(endpoint.hostname))
        self._store = open_store(url, Bounds())
        self._seen = 0

    def _open(self) -> None:
        try:
            self._poll()
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"{self._server.endpoint} keeps no log to judge by ({error}): only "
                "integration.support.dynamodb_server does"
            ) from None

    def _work(self) -> list[Callable[[], None]]:
        return [self._poll, self._sweep]

    def _sweep(self) -> None:
        with suppress(StoreError):  # the store is being let fail
            self._store.list("")
        self._closing.wait(1.0)

    def _poll(self) -> None:
        told = self._server.control("log", since=self._seen)
        with self.changed:
            for change in told:
                self._seen += 1
                key = split(change["path"].removeprefix(self._prefix))
                if key and change["table"] == self._table and not change["extended"]:
                    self._note(_change(key, change))
            if told:
                self.changed.notify_all()
        self._closing.wait(POLL)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._store.close()


def _change(key: Key, told: Mapping[str, Any]) -> Change:
    value = None if told["value"] is None else read(told["value"])
    numbers = told["created"], told["version"]
    bounds = told["after"], told["at"]
    return Change(*bounds, *key, *numbers, value, told["expired"], told["ends"])

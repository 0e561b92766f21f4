"""Fixtures of the tests on DynamoDB: an empty store, and a count of what is asked."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from integration.dynamodb.clients import plain
from integration.support.dynamodb import (
    elsewhere,
    url_of,
)
from service_monitor.stores.dynamodb.aws import Aws, parse_place


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Give an empty store's URL: in moto, or where the environment says."""
    there = elsewhere()
    return there or str(request.getfixturevalue("dynamodb").make_table())


@pytest.fixture
def new_table(url: str) -> Iterator[str]:
    """Give the URL of a table that is not there yet, and is not left behind."""
    place = parse_place(url)
    place = replace(place, table=f"t-{uuid.uuid4().hex[:12]}", prefix="")
    yield url_of(place)
    client = plain(place)
    with suppress(client.exceptions.ResourceNotFoundException):
        client.delete_table(TableName=place.table)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what this process asks DynamoDB for, by operation."""
    counted, send = Counter[str](), Aws.send

    def counting(aws: Aws, operation: str, parameters: dict[str, Any]) -> Any:
        counted[operation] += 1
        return send(aws, operation, parameters)

    monkeypatch.setattr(Aws, "send", counting)
    return counted

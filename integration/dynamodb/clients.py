"""Clients of DynamoDB: ours, one behind a proxy, and one of boto3's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.faults.proxy import Proxy
from integration.support.dynamodb import (
    ELSEWHERE,
    url_of,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.base import Store
from service_monitor.stores.dynamodb.aws import Place, parse_place
from service_monitor.stores.opening import open_store


def plain(place: Place) -> Any:
    """Give a client of boto3's own, to do what the store never would."""
    import boto3

    session = boto3.Session(profile_name=place.profile, region_name=place.region)
    return session.client("dynamodb", endpoint_url=place.endpoint)


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, Store]]:
    """Open a store behind a proxy that damages connections."""
    place = parse_place(url)
    endpoint = urlsplit(place.endpoint or "")
    if endpoint.scheme != "http":
        pytest.skip(f"needs an endpoint without TLS, in {ELSEWHERE}")
    with Proxy(str(endpoint.hostname), endpoint.port or 80) as proxy:
        yield proxy, opened(url_of(replace(place, endpoint=f"http://{proxy.endpoint}")))


def opened(url: str, bounds: Bounds | None = None) -> Store:
    return open_store(url, bounds or Bounds(), {})

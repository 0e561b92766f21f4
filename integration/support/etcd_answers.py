"""What etcd's gateway answers, as the tests of the etcd store make it up."""

from __future__ import annotations

import base64
import json
from typing import Any

import responses

from service_monitor.net.calls import Bounds
from service_monitor.records import Record
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v3 import Etcd3Store

ONE, TWO = "http://one:2379", "http://two:2379"
HEADER = {"revision": "7"}
EMPTY = {"header": HEADER}
RECORD = Record("k", "v", 3, 4, 99)


def store_on(*names: str, **access: Any) -> Etcd3Store:
    endpoints = [Endpoint("http", name, 2379) for name in names or ("one",)]
    return Etcd3Store(endpoints, Access(**access), Bounds())


def sent(mock: responses.RequestsMock) -> list[dict[str, Any]]:
    return [json.loads(call.request.body or b"") for call in mock.calls]


def txn(**answer: Any) -> dict[str, Any]:
    return {"header": HEADER, **answer}


def kv(value: str, lease: int, created: int = 3, version: int = 4) -> dict[str, str]:
    return {
        "key": base64.b64encode(b"/service_monitor/k").decode(),
        "value": base64.b64encode(value.encode()).decode(),
        "create_revision": str(created),
        "mod_revision": str(version),
        "lease": str(lease),
    }


def found(record: dict[str, str] | None) -> dict[str, Any]:
    kvs = {"kvs": [record]} if record else {}
    return txn(responses=[{"response_range": kvs}])


LEASE_GONE = {"message": "etcdserver: requested lease not found", "code": 5}

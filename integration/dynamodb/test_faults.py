"""DynamoDB fails, throttles, is silent, or answers too late."""

from __future__ import annotations

import threading
import time

import pytest

from integration.dynamodb.clients import opened, proxied
from integration.support.dynamodb import (
    DynamoDB,
)
from service_monitor.errors import (
    Stopped,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.timing import now


@pytest.mark.parametrize("kind", ["throttle", "limit", "conflict", "broken", "lost"])
def test_half_of_all_requests_failing_costs_time_alone(
    dynamodb: DynamoDB, url: str, label: str, kind: str
) -> None:
    """A bad minute of AWS would send nodes out of the queue, or let two start."""
    store = opened(url)
    with dynamodb.fault(kind, every=2):
        for number in range(5):
            record = store.create(f"{label}/a", str(number), 30)
            record = store.update(record, f"{number} held", 30)
            record = store.keep_alive(record, 30)
            assert [r.value for r in store.list(f"{label}/").records] == [record.value]
            store.delete(record)
            assert store.list(f"{label}/").records == ()


def test_throttling_without_end_is_told_within_the_call(
    dynamodb: DynamoDB, url: str, label: str
) -> None:
    """A command would overrun its timeout, and its queue be lost on the way."""
    store = opened(url)
    record = store.create(f"{label}/a", "1", 30)
    with dynamodb.fault("throttle"):
        begun = now()
        with pytest.raises(StoreUnavailable, match="ProvisionedThroughputExceeded"):
            store.list(f"{label}/")
        assert now() - begun < 6
    assert store.list(f"{label}/").records == (record,)


def test_a_silent_endpoint_is_told_within_the_call(url: str, label: str) -> None:
    """`hosts` would hang, and the start script with it."""
    with proxied(url) as (proxy, store):
        store.list(f"{label}/")
        proxy.black_hole()
        begun = now()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            store.list(f"{label}/")
        assert now() - begun < 6


def test_one_silent_connection_does_not_use_up_the_call(url: str, label: str) -> None:
    """Each firewall that forgets a connection would be an outage."""
    with proxied(url) as (proxy, store):
        store.list(f"{label}/")
        proxy.silence()
        assert store.list(f"{label}/").records == ()


def test_a_write_that_arrives_late_arrives_in_vain(
    dynamodb: DynamoDB, url: str, label: str
) -> None:
    """A node that was stopped while it queued would leave its ticket behind."""
    bounds = Bounds()
    store, other = opened(url, bounds), opened(url)
    store.list(f"{label}/")
    with dynamodb.fault("slow", share=1.0, only="Transact"):
        threading.Timer(0.3, bounds.stop.request).start()
        with pytest.raises(Stopped):
            store.create(f"{label}/a", "1", 30)
        assert store.list(f"{label}/").records == ()
        time.sleep(3)  # by now it has been carried out, or refused
    assert other.list(f"{label}/").records == ()
    assert other.create(f"{label}/b", "2", 30).created == 2

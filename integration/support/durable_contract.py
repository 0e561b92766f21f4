"""What every store must do with records that no ttl ends; see `store_contract`.

`from integration.support.durable_contract import *` runs them all, with the fixtures of
that module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.support.contract_steps import WOKEN, gone_within, waited
from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.stores.base import Store

MakeStore = Callable[..., Store]

SHORT = 2.0
"""The shortest ttl that every store keeps exactly."""


def test_a_durable_record_outlives_the_others(
    make_store: MakeStore, label: str
) -> None:
    """A node that is dead for longer than any ttl would be forgotten."""
    store = make_store()
    durable = store.create(f"{label}/members/a", "käse €", None)
    store.create(f"{label}/hosts/a", "1", SHORT)
    assert gone_within(store, f"{label}/hosts/a", SHORT + 4)
    time.sleep(1)
    (found,) = make_store().list(f"{label}/").records
    assert (found.key, found.value) == (f"{label}/members/a", "käse €")
    assert (found.created, found.version) == (durable.created, durable.version)
    assert store.time_left(found) == math.inf


def test_a_durable_record_is_created_only_where_none_is(
    make_store: MakeStore, label: str
) -> None:
    """Two nodes would both claim to have founded the cluster."""
    first, second = make_store(), make_store()
    record = first.create(f"{label}/founder", "1", None)
    for ttl in (None, 30):
        with pytest.raises(KeyExists) as refused:
            second.create(f"{label}/founder", "2", ttl)
        assert refused.value.record.value == "1"
        assert refused.value.record.created == record.created
    second.create(f"{label}/a", "1", 30)
    with pytest.raises(KeyExists):
        first.create(f"{label}/a", "2", None)


def test_one_of_many_that_create_a_durable_record_wins(
    make_store: MakeStore, label: str
) -> None:
    """Nodes that boot at the same moment would all found."""
    stores = [make_store() for _ in range(8)]

    def create(number: int) -> bool:
        try:
            stores[number].create(f"{label}/founder", str(number), None)
        except KeyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_durable_records_stand_among_the_others_by_created(
    make_store: MakeStore, label: str
) -> None:
    """A label's first member would be told as its latest one."""
    stores = make_store(), make_store()
    seen = []
    for turn in range(6):
        ttl = None if turn % 2 else 30
        record = stores[turn % 2].create(f"{label}/{9 - turn}", "x", ttl)
        seen.append(record.created)
    assert seen == sorted(set(seen))
    listed = [record.created for record in stores[0].list(f"{label}/").records]
    assert listed == seen
    (one,) = stores[0].list(f"{label}/8").records
    assert one.created == seen[1]


def test_an_update_without_ttl_leaves_a_record_durable(
    make_store: MakeStore, label: str
) -> None:
    """A member would be forgotten some time after its second change."""
    store = make_store()
    first = store.create(f"{label}/a", "1", None)
    second = store.update(first, "2", None)
    assert second.created == first.created
    assert second.version > first.version
    assert store.time_left(second) == math.inf
    (found,) = make_store().list(f"{label}/").records
    assert (found.value, found.version) == ("2", second.version)
    third = make_store().update(found, "3", None)
    assert third.version > second.version
    assert make_store().time_left(third) == math.inf


def test_an_update_of_a_durable_record_is_compared(
    make_store: MakeStore, label: str
) -> None:
    """What another process wrote of this member would be lost."""
    store = make_store()
    first = store.create(f"{label}/a", "1", None)
    second = store.update(first, "2", None)
    again = store.update(first, "2", None)  # as after a reply that was lost
    assert again.version == second.version
    with pytest.raises(Conflict) as refused:
        make_store().update(first, "3", None)
    assert refused.value.record.value == "2"
    store.delete(second)
    with pytest.raises(RecordGone):
        store.update(second, "3", None)
    assert store.time_left(second) == 0
    store.create(f"{label}/a", "1", None)
    with pytest.raises(RecordGone):
        store.update(second, "3", None)
    assert store.time_left(second) == 0


def test_an_update_with_a_ttl_ends_a_durable_record(
    make_store: MakeStore, label: str
) -> None:
    """What is to be forgotten some day would stay for ever."""
    store = make_store()
    before = store.create(f"{label}/a", "1", None)
    record = store.update(before, "2", SHORT)
    for seen in before, record:
        assert 0 < store.time_left(seen) <= SHORT
    assert [r.value for r in store.list(f"{label}/a").records] == ["2"]
    assert gone_within(store, f"{label}/a", SHORT + 4)
    with pytest.raises(RecordGone):
        store.update(record, "3", None)
    again = store.create(f"{label}/a", "1", None)
    assert again.created > record.version
    assert store.time_left(again) == math.inf


def test_an_update_without_ttl_makes_nothing_durable(
    make_store: MakeStore, label: str
) -> None:
    """The lease of a dead node would be held for ever."""
    store = make_store()
    store.update(store.create(f"{label}/a", "1", SHORT), "2", None)
    assert gone_within(store, f"{label}/a", SHORT + 4)


def test_a_durable_record_is_deleted_only_as_it_was_read(
    make_store: MakeStore, label: str
) -> None:
    """`forget` would remove a member that has just come back."""
    store = make_store()
    old = store.create(f"{label}/a", "1", None)
    new = store.update(old, "2", None)
    with pytest.raises(Conflict):
        store.delete(old)
    assert store.list(f"{label}/a").records
    store.delete(new)
    store.delete(new)
    assert store.list(f"{label}/").records == ()
    again = store.create(f"{label}/a", "3", None)
    store.delete(new)
    assert store.list(f"{label}/a").records[0].created == again.created
    assert again.created > new.version


def test_wait_sees_changes_of_durable_records(
    make_store: MakeStore, label: str
) -> None:
    """Whoever waits for the founder would learn of it only by luck."""
    key = f"{label}/members/a"
    below = f"{label}/members/"
    assert waited(make_store, below, lambda s: s.create(key, "1", None)) < WOKEN
    record = make_store().list(key).records[0]
    assert waited(make_store, below, lambda s: s.update(record, "2", None)) < WOKEN
    record = make_store().list(key).records[0]
    gone = waited(make_store, key, lambda s: s.delete(record), gone=True)
    assert gone < WOKEN


def test_a_store_that_closes_leaves_durable_records(
    make_store: MakeStore, label: str
) -> None:
    """A member would be forgotten when its process ends."""
    store = make_store()
    store.update(store.create(f"{label}/a", "1", None), "2", None)
    store.close()
    assert [r.value for r in make_store().list(f"{label}/").records] == ["2"]

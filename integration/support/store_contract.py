"""What every store must do, as functions over a `make_store` fixture.

`from integration.support.store_contract import *` in a module that has the fixture runs
them all. A store that lacks something fails: nothing here is skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from service_monitor.errors import Conflict, KeyExists, RecordGone, Stopped
from service_monitor.net.calls import Bounds
from service_monitor.stores.base import Store
from service_monitor.timing import now

MakeStore = Callable[..., Store]

SHORT = 2.0
"""The shortest ttl that every store keeps exactly (etcd v3 grants 2 s for 1 s)."""
HANG = 20.0
"""Seconds after which a wait counts as hung; a bound, not a measurement."""
WOKEN = HANG / 2  # that long a wait lasts at most if a change ends it


def gone_within(store: Store, key: str, seconds: float) -> bool:
    deadline = now() + seconds
    while now() < deadline:
        if not store.list(key).records:
            return True
        time.sleep(0.05)
    return False


def test_create_gives_what_list_shows(make_store: MakeStore, label: str) -> None:
    """A ticket that reads back differently would be taken for somebody else's."""
    store = make_store()
    record = store.create(f"{label}/a", "käse €", 30)
    (found,) = store.list(f"{label}/").records
    assert (found.key, found.value) == (f"{label}/a", "käse €")
    assert (found.created, found.version) == (record.created, record.version)


def test_create_is_refused_while_the_key_lives(
    make_store: MakeStore, label: str
) -> None:
    """Two nodes would hold the same place."""
    first, second = make_store(), make_store()
    record = first.create(f"{label}/a", "1", 30)
    with pytest.raises(KeyExists) as refused:
        second.create(f"{label}/a", "2", 30)
    assert refused.value.record.value == "1"
    assert refused.value.record.created == record.created


@pytest.mark.promise(2)
def test_created_orders_and_is_never_used_twice(
    make_store: MakeStore, label: str
) -> None:
    """A node that came later would start first, or an old token fence a new one."""
    stores = make_store(), make_store()
    seen = []
    for turn in range(6):
        record = stores[turn % 2].create(f"{label}/{9 - turn}", "x", 30)
        seen.append(record.created)
        if turn == 2:
            stores[0].delete(record)
    assert seen == sorted(set(seen))
    listed = [record.created for record in stores[0].list(f"{label}/").records]
    assert listed == [*seen[:2], *seen[3:]]


def test_one_of_many_concurrent_creates_wins(make_store: MakeStore, label: str) -> None:
    """Nodes that boot at the same moment would all be the first."""
    stores = [make_store() for _ in range(8)]

    def create(number: int) -> bool:
        try:
            stores[number].create(f"{label}/a", str(number), 30)
        except KeyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_update_keeps_created_and_grows_version(
    make_store: MakeStore, label: str
) -> None:
    """A granted ticket would lose its place, or its token would not fence."""
    store = make_store()
    first = store.create(f"{label}/a", "1", 30)
    second = store.update(first, "2", 40)
    assert second.created == first.created
    assert second.version > first.version
    (found,) = store.list(f"{label}/a").records
    assert (found.value, found.version) == ("2", second.version)
    assert 30 < store.time_left(found) <= 40


def test_update_is_refused_when_changed(make_store: MakeStore, label: str) -> None:
    """Somebody else's write would be lost."""
    store = make_store()
    first = store.create(f"{label}/a", "1", 30)
    store.update(first, "2", 30)
    with pytest.raises(Conflict) as refused:
        make_store().update(first, "3", 30)
    assert refused.value.record.value == "2"


@pytest.mark.promise(1)
def test_update_of_a_deleted_record_is_refused(
    make_store: MakeStore, label: str
) -> None:
    """A waiter whose ticket was taken away would be granted the lease."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    store.delete(record)
    with pytest.raises(RecordGone):
        store.update(record, "2", 30)
    store.create(f"{label}/a", "1", 30)
    with pytest.raises(RecordGone):
        store.update(record, "2", 30)
    assert [r.value for r in store.list(f"{label}/").records] == ["1"]


def test_update_without_ttl_keeps_the_expiry(make_store: MakeStore, label: str) -> None:
    """A crash-looping holder would extend its lease for ever."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 6)
    time.sleep(1.5)
    for value in ("2", "3", "4"):
        record = store.update(record, value, None)
    assert store.time_left(record) <= 5
    assert gone_within(store, f"{label}/a", 8)


def test_repeated_update_with_the_same_value_succeeds(
    make_store: MakeStore, label: str
) -> None:
    """A grant whose reply was lost would be taken for somebody else's."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    once = store.update(record, "2", None)
    again = store.update(record, "2", None)
    assert again.version == once.version


@pytest.mark.promise(3)
def test_record_expires_after_its_ttl(make_store: MakeStore, label: str) -> None:
    """A dead node would block the queue for ever, or a living one lose its place."""
    store = make_store()
    begun = now()
    store.create(f"{label}/a", "1", SHORT)
    while now() - begun < SHORT - 0.6:
        # The look itself may outlast the record, on a machine that is busy.
        assert store.list(f"{label}/a").records or now() - begun > SHORT
        time.sleep(0.1)
    assert gone_within(store, f"{label}/a", SHORT + 4)


def test_keep_alive_extends_by_the_ttl(make_store: MakeStore, label: str) -> None:
    """A waiter would lose its place while it still waits."""
    store = make_store()
    ttl = 2 * SHORT  # a machine that is busy may be late by most of it
    record = store.create(f"{label}/a", "1", ttl)
    until = now() + 1.5 * ttl
    while now() < until:
        record = store.keep_alive(record, ttl)
        time.sleep(ttl / 8)
    (found,) = store.list(f"{label}/a").records
    assert (found.value, found.created) == ("1", record.created)
    store.update(record, "2", None)  # the record given back is current


def test_keep_alive_of_an_expired_record_is_refused(
    make_store: MakeStore, label: str
) -> None:
    """A paused waiter would believe in a place that it lost."""
    store = make_store()
    record = store.create(f"{label}/a", "1", SHORT)
    assert gone_within(store, f"{label}/a", SHORT + 4)
    with pytest.raises(RecordGone):
        store.keep_alive(record, SHORT)


def test_keep_alive_never_extends_what_somebody_else_wrote(
    make_store: MakeStore, label: str
) -> None:
    """A watch that was replaced would keep its dead successor's "up" for ever."""
    older, newer = make_store(), make_store()
    old = older.create(f"{label}/a", "old", 30)
    newer.update(old, "new", SHORT)
    deadline = now() + SHORT + 5
    while older.list(f"{label}/a").records:
        assert now() < deadline, "it is kept alive"
        with suppress(Conflict, RecordGone):
            older.keep_alive(old, 30)
        time.sleep(0.1)


def test_keep_alive_wakes_nobody(make_store: MakeStore, label: str) -> None:
    """Each keepalive of each waiter would wake all the others."""
    record = make_store().create(f"{label}/a", "1", 30)

    def keep(store: Store) -> None:
        kept = record
        for _ in range(3):
            kept = store.keep_alive(kept, 30)
            time.sleep(0.2)

    assert waited(make_store, f"{label}/", keep, 2.0) > 1.8


def test_delete_is_compared_and_idempotent(make_store: MakeStore, label: str) -> None:
    """A stale watch would free the lease of a newer start."""
    store = make_store()
    old = store.create(f"{label}/a", "1", 30)
    new = store.update(old, "2", 30)
    with pytest.raises(Conflict):
        store.delete(old)
    assert store.list(f"{label}/a").records
    store.delete(new)
    store.delete(new)
    assert not store.list(f"{label}/a").records
    again = store.create(f"{label}/a", "3", 30)
    store.delete(new)
    assert store.list(f"{label}/a").records[0].created == again.created


def test_list_tells_a_key_from_a_prefix(make_store: MakeStore, label: str) -> None:
    """The record of es-10 would be taken for that of es-1."""
    store = make_store()
    for key in ("es-1", "es-10", "es/sub"):
        store.create(f"{label}/{key}", key, 30)
    store.create(f"{label}x/es-1", "other label", 30)
    assert [r.value for r in store.list(f"{label}/es-1").records] == ["es-1"]
    assert [r.value for r in store.list(f"{label}/es/").records] == ["es/sub"]
    assert len(store.list(f"{label}/").records) == 3
    assert store.list(f"{label}/none/").records == ()


def test_list_of_an_emptied_prefix_is_empty(make_store: MakeStore, label: str) -> None:
    """An empty directory of etcd v2 would be read as a host."""
    store = make_store()
    store.delete(store.create(f"{label}/hosts/a", "1", 30))
    assert store.list(f"{label}/hosts/").records == ()
    assert store.list(f"{label}/").records == ()


def waited(
    make_store: MakeStore,
    prefix: str,
    change: Callable[[Store], object],
    timeout: float = HANG,
    *,
    gone: bool = False,
) -> float:
    """Change something during a wait; return the seconds that it lasted.

    The default is long: on a busy machine the change itself comes late.
    """
    store, other = make_store(), make_store()
    snapshot, ended = other.list(prefix), list[float]()

    def wait() -> None:
        other.wait(prefix, snapshot, timeout, gone=gone)
        ended.append(now())

    begun = now()
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    change(store)
    thread.join(2 * HANG)
    return ended[0] - begun


def test_wait_sees_create_update_and_delete(make_store: MakeStore, label: str) -> None:
    """`hosts --wait` and a waiting node would learn of a change only by luck."""
    key = f"{label}/a"
    assert waited(make_store, f"{label}/", lambda s: s.create(key, "1", 30)) < WOKEN
    record = make_store().list(key).records[0]
    assert waited(make_store, key, lambda s: s.update(record, "2", None)) < WOKEN
    record = make_store().list(key).records[0]
    assert waited(make_store, key, lambda s: s.delete(record)) < WOKEN


def test_wait_sees_a_change_made_before_it(make_store: MakeStore, label: str) -> None:
    """A release between the look and the wait would be a lost wake-up."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    snapshot = store.list(f"{label}/")
    store.delete(record)
    begun = now()
    store.wait(f"{label}/a", snapshot, HANG, gone=True)
    assert now() - begun < WOKEN


@pytest.mark.promise(2)
def test_wait_for_gone_ignores_all_else(make_store: MakeStore, label: str) -> None:
    """One hand-over would wake the whole queue."""
    record = make_store().create(f"{label}/a", "1", 30)

    def busy(store: Store) -> None:
        store.update(record, "2", None)
        store.create(f"{label}/b", "1", 30)

    assert waited(make_store, f"{label}/a", busy, 3.0, gone=True) > 2.5
    record = make_store().list(f"{label}/a").records[0]
    key = record.key
    assert waited(make_store, key, lambda s: s.delete(record), gone=True) < WOKEN


def test_wait_for_gone_sees_an_expiry(make_store: MakeStore, label: str) -> None:
    """The waiter behind a dead node would wait for its next look."""
    store = make_store()
    store.create(f"{label}/a", "1", SHORT)
    snapshot = store.list(f"{label}/")
    begun = now()
    store.wait(f"{label}/a", snapshot, HANG, gone=True)
    assert now() - begun < SHORT + 5


def test_wait_ends_at_its_timeout(make_store: MakeStore, label: str) -> None:
    """A waiting command would overrun its own timeout."""
    store = make_store()
    snapshot = store.list(f"{label}/")
    begun = now()
    store.wait(f"{label}/", snapshot, 0.5)
    assert 0.4 < now() - begun < HANG


def test_wait_ends_at_once_on_stop(make_store: MakeStore, label: str) -> None:
    """systemd would wait for its stop timeout and then kill."""
    bounds = Bounds()
    store = make_store(bounds)
    snapshot = store.list(f"{label}/")
    threading.Timer(0.3, bounds.stop.request).start()
    begun = now()
    with pytest.raises(Stopped):
        store.wait(f"{label}/", snapshot, HANG)
    assert now() - begun < WOKEN


def test_prepared_update_lives_its_whole_ttl(make_store: MakeStore, label: str) -> None:
    """A lease taken late would be shorter in the store than its holder believes."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    store.prepare(10)
    time.sleep(1.2)
    store.prepare(10)
    time.sleep(1.2)
    asked = now()
    record = store.update(record, "2", 10)
    assert store.time_left(record) + (now() - asked) > 8.9


def test_time_left_of_a_gone_record_is_zero(make_store: MakeStore, label: str) -> None:
    """`status` would show a lease that nobody holds."""
    store = make_store()
    record = store.create(f"{label}/a", "1", SHORT)
    assert 0 < store.time_left(record) <= SHORT
    assert gone_within(store, f"{label}/a", SHORT + 4)
    assert store.time_left(record) == 0


def test_a_foreign_version_is_compared_too(make_store: MakeStore, label: str) -> None:
    """A forged or mixed-up record would pass for the one that was read."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    with pytest.raises(Conflict):
        store.delete(replace(record, version=record.version + 1))
    with pytest.raises(Conflict):
        store.update(replace(record, version=record.version + 1), "2", 30)


def test_close_gives_back_and_a_closed_store_leaves_records(
    make_store: MakeStore, label: str
) -> None:
    """The lease would end with the process that acquired it."""
    store = make_store()
    record = store.create(f"{label}/a", "1", 30)
    store.prepare(30)
    store.update(record, "2", 30)
    store.prepare(60)
    store.close()
    assert make_store().list(f"{label}/a").records


def test_local_address_is_one_of_ours(make_store: MakeStore) -> None:
    """Others would be told an address that leads nowhere."""
    assert make_store().local_address() == "127.0.0.1"

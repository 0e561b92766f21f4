"""The contract on DynamoDB, here moto's server, and what only this store has."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.cluster import Cluster
from integration.faults.processes import Commands
from integration.faults.proxy import Proxy
from integration.history.observer import split
from integration.images import ROOT
from integration.support.dynamodb import (
    ELSEWHERE,
    DynamoDB,
    elsewhere,
    start_dynamodb,
    url_of,
)
from integration.support.loopback import Loopback, answering, status
from integration.support.store_contract import *  # noqa: F403
from integration.support.store_contract import HANG, MakeStore
from integration.test_simulation import (
    Change,
    assert_each_saw_the_earlier,
    assert_one_cluster,
    assert_orderly,
    most_at_once,
)
from service_monitor.cli.app import main
from service_monitor.errors import (
    KeyExists,
    RecordGone,
    Stopped,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Bounds
from service_monitor.stores.base import Store
from service_monitor.stores.dynamodb.aws import Aws, Place, parse_place
from service_monitor.stores.dynamodb.store import DynamoStore
from service_monitor.stores.dynamodb.table import init_table
from service_monitor.stores.opening import open_store
from service_monitor.timing import now


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


# faults


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
    dynamodb.control("faults", kind="slow", share=1.0, only="Transact")
    threading.Timer(0.3, bounds.stop.request).start()
    with pytest.raises(Stopped):
        store.create(f"{label}/a", "1", 30)
    assert store.list(f"{label}/").records == ()
    time.sleep(3)  # by now it has been carried out, or refused
    dynamodb.control("faults")
    assert other.list(f"{label}/").records == ()
    assert other.create(f"{label}/b", "2", 30).created == 2


def test_many_that_write_at_once_all_get_their_number(
    make_store: MakeStore, label: str
) -> None:
    """Of a fleet that boots after a power cut some would not even queue."""
    stores = [make_store() for _ in range(10)]

    def create(number: int) -> int:
        return stores[number].create(f"{label}/{number}", str(number), 60).created

    with ThreadPoolExecutor(10) as pool:
        numbers = list(pool.map(create, range(10)))
    assert len(set(numbers)) == 10
    listed = stores[0].list(f"{label}/").records
    assert [record.created for record in listed] == sorted(numbers)


# time


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_an_hour_off_changes_nothing(
    url: str, label: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with a wrong clock could not start, or would overtake the others."""
    right = opened(url)
    first = right.create(f"{label}/a", "right", 3)
    off = timedelta(hours=hours)
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda: datetime.now(UTC) + off
    )
    wrong = opened(url)
    with pytest.raises(KeyExists):
        wrong.create(f"{label}/a", "wrong", 3)
    assert 0 < wrong.time_left(first) <= 3
    second = wrong.create(f"{label}/b", "wrong", 3)
    assert 0 < right.time_left(second) <= 3
    time.sleep(1)
    assert len(right.list(f"{label}/").records) == 2
    wrong.keep_alive(second, 60)
    time.sleep(4)
    assert [r.key for r in right.list(f"{label}/").records] == [f"{label}/b"]
    assert wrong.create(f"{label}/a", "wrong", 3).created > second.created


def test_what_is_out_of_time_never_blocks(url: str, label: str) -> None:
    """DynamoDB deletes some days later: until then nobody would start."""
    dead, living = opened(url), opened(url)
    old = dead.create(f"{label}/a", "old", 0.2)
    time.sleep(3)
    place = parse_place(url)
    where = {"label": f"{place.prefix}/{label}".lstrip("/"), "key": "a"}
    key = {name: {"S": text} for name, text in where.items()}
    there = plain(place).get_item(TableName=place.table, Key=key, ConsistentRead=True)
    assert "Item" in there  # still
    assert living.create(f"{label}/a", "new", 30).created > old.created
    assert [r.value for r in living.list(f"{label}/").records] == ["new"]


def test_whoever_was_found_dead_stays_dead(
    url: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter that wakes up late would take the lease beside its successor."""
    paused, other = DynamoStore(parse_place(url), Bounds()), opened(url)
    record = paused.create(f"{label}/a", "waiting", 0.5)
    time.sleep(3)
    assert other.list(f"{label}/").records == ()
    # As far as it can tell, it might still be alive.
    monkeypatch.setattr(paused._clock, "earliest", lambda: 0.0)
    with pytest.raises(RecordGone):
        paused.update(record, "held", 30)
    with pytest.raises(RecordGone):
        paused.keep_alive(record, 30)


def test_whoever_is_renewed_in_time_is_not_found_dead(
    url: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that crosses a keepalive would take a living waiter's place away."""
    owner, other = opened(url), DynamoStore(parse_place(url), Bounds())
    record = owner.create(f"{label}/a", "waiting", 30)
    read = other._read

    def slowly(*args: Any) -> Iterator[Any]:
        for item in read(*args):
            item["dead_after"] = {"N": "1"}  # as it was read, before the keepalive
            yield item

    monkeypatch.setattr(other, "_read", slowly)
    assert other.list(f"{label}/").records == (record,)


# many waiters, and what it costs


def test_a_hundred_waiters_are_a_handful_of_looks(
    url: str, label: str, asked: Counter[str]
) -> None:
    """Waiting would be throttled, and dearer than the cluster."""
    store = opened(url)
    records = [store.create(f"{label}/{n:03}", "1", 300) for n in range(100)]
    snapshot = store.list(f"{label}/")
    bounds = Bounds()
    waiters = [opened(url, bounds) for _ in range(3)]
    seconds = 8.0

    def wait(number: int) -> None:
        ahead, waiter = records[number], waiters[number % 3]
        until = now() + seconds
        while (left := until - now()) > 0:
            waiter.wait(ahead.key, snapshot, min(5.0, left), gone=True)

    before = asked["get_item"]
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(99)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert (asked["get_item"] - before) / seconds < 12


@contextmanager
def metered(dynamodb: DynamoDB) -> Iterator[Callable[[], tuple[int, int]]]:
    """Give a function that tells the read and write units used in the block."""
    before: dict[str, int] = dynamodb.control("usage")
    after: dict[str, int] = {}
    yield lambda: (after["read"] - before["read"], after["write"] - before["write"])
    after |= dynamodb.control("usage")


def test_the_documented_units_are_the_real_ones(
    dynamodb: DynamoDB, url: str, label: str
) -> None:
    """The bill would not be what docs/dynamodb.md says."""
    service = Loopback(answering(status("200 OK")))
    with Commands(url, label) as run:
        assert run("acquire-lease", "--service-id=a", "--host=a").wait() == 0
        with metered(dynamodb) as start:
            waiter = run("acquire-lease", "--service-id=b", "--host=b")
            waiter.wait_said("waiting, position", HANG)
            with metered(dynamodb) as hand_over:
                assert run("release-lease", "--service-id=a").wait() == 0
                assert waiter.wait() == 0
            assert run("hosts").wait() == 0
            watch = run("watch", "--service-id=b", f"--monitor-url={service.url}")
            watch.wait_said("startup lease released", HANG)
        with metered(dynamodb) as idle:
            time.sleep(20)
        watch.term()
        watch.wait()
    service.close()
    said = (ROOT / "docs/dynamodb.md").read_text()
    reads, writes = hand_over()
    assert reads <= documented(said, "one hand-over", "read") + 2  # polls under load
    assert writes <= documented(said, "one hand-over", "write")
    reads, writes = start()
    assert reads <= documented(said, "one start of a node", "read") + 8
    assert writes <= documented(said, "one start of a node", "write")
    reads, writes = idle()
    assert 180 * reads == pytest.approx(
        documented(said, "one watched service for an hour", "read"), rel=0.3
    )
    assert 180 * writes == pytest.approx(
        documented(said, "one watched service for an hour", "write"), rel=0.3
    )


def documented(page: str, what: str, kind: str) -> int:
    """Read a figure from the table of units."""
    (row,) = re.findall(rf"^\| {what}.*?\| ([\d,]+) \| ([\d,]+) \|", page, re.MULTILINE)
    return int(row[("read", "write").index(kind)].replace(",", ""))


# the main job


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lead", [0, 3600])
def test_twenty_nodes_started_at_once_form_one_cluster(
    label: str, tmp_path: Path, lead: int
) -> None:
    """On AWS the one thing that this software is for would not work.

    Or not on hosts whose clock is an hour behind.
    """
    with (
        clocked(lead) as (url, server),
        Cluster(
            20 if not lead else 4,
            store=url,
            label=label,
            directory=tmp_path,
            boot=(0.3, 0.6),
            watch_options=("--interval", "1s", "--ttl", "3s"),
        ) as cluster,
    ):
        cluster.start()
        cluster.wait_up(HANG * 8)
        cluster.wait_for("the last lease's release", lambda: not cluster.leases(), HANG)
        assert_one_cluster(cluster)
        granted = cluster.order("granted")
        assert granted == cluster.order("started")
        if server:
            assert granted == assert_orderly(logged(server))
        assert len(granted) == len(cluster.nodes)
        assert most_at_once(cluster.events()) == 1
        assert_each_saw_the_earlier(cluster)
        tokens = [int(event.detail) for event in cluster.events("granted")]
        assert tokens == sorted(set(tokens))


@contextmanager
def clocked(lead: float) -> Iterator[tuple[str, DynamoDB | None]]:
    """Give an empty store whose clock has such a lead, and its server if it is ours."""
    if there := elsewhere():
        if lead:
            pytest.skip(f"needs a clock that we set, and {ELSEWHERE} names another one")
        yield there, None
        return
    with start_dynamodb(lead=lead) as server:
        yield server.make_table(), server


def logged(server: DynamoDB) -> list[Change]:
    """Give the changes of all records, but not how long they live."""
    changes = []
    for told in server.control("log", since=0):
        key = split(told["path"])
        if key and not told["extended"]:
            value = told["value"] and json.loads(told["value"])
            changes.append(Change(*key[1:], told["created"], value))
    return changes


# the table, and who may not use it


def command(*argv: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command in this process; errors have to be one line."""
    code = main(argv)
    out, err = capsys.readouterr()
    assert err.count("\n") == (1 if code else 0), err
    return code, out, err


def test_init_store_makes_the_table_once(
    new_table: str, asked: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Provisioning would fail at its second run, or leave dead items for ever."""
    place = parse_place(new_table)
    init = ("init-store", "--store", new_table)
    code, planned, _ = command(*init, "--dry-run", capsys=capsys)
    assert code == 0
    assert f"would make table {place.table} in " in planned
    assert ": keys label and key" in planned
    assert "would make" in planned.splitlines()[1]
    assert set(asked) == {"describe_table", "transact_write_items"}  # of conditions
    code, made, _ = command(*init, capsys=capsys)
    assert (code, made) == (0, planned.replace("would make", "made"))
    again = command(*init, capsys=capsys)
    assert again == (0, "nothing to make: this store is ready\n", "")
    client, name = plain(place), {"TableName": place.table}
    table = client.describe_table(**name)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    ttl = client.describe_time_to_live(**name)["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] in ("ENABLING", "ENABLED")
    assert ttl["AttributeName"] == "litter_after"
    backups = client.describe_continuous_backups(**name)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "DISABLED"


def test_init_store_on_many_hosts_at_once(new_table: str) -> None:
    """Of hosts that all run it at their first boot all but one would fail."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: init_table(new_table, Bounds()), range(4)))
    assert init_table(new_table, Bounds()) == []


def test_a_missing_table_says_how_to_make_it(
    new_table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first try of every new user would end in a riddle."""
    options = ("--label=es", "--store", new_table)
    code, out, err = command("hosts", *options, capsys=capsys)
    assert (code, out) == (69, "")
    assert f"table {parse_place(new_table).table} in " in err
    assert "does not exist: `service-monitor init-store` makes it" in err


def test_another_table_is_left_alone(
    new_table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody's data would get our records mixed in, or a traceback come of it."""
    place = parse_place(new_table)
    client = plain(place)
    client.create_table(
        TableName=place.table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=place.table)
    store = ("--store", new_table)
    code, _, err = command("init-store", *store, capsys=capsys)
    assert code == 69
    assert "has other keys than label and key" in err
    code, _, err = command("hosts", "--label=es", *store, capsys=capsys)
    assert code == 69
    assert "was not made by `service-monitor init-store`" in err


def test_a_record_that_is_too_long_is_told(
    url: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever publishes half a megabyte would be sent looking for an outage."""
    with pytest.raises(StoreRefused, match=r"(?i)\bsize\b"):
        opened(url).create(f"{label}/a", "x" * 500_000, 30)


def test_prefixes_know_nothing_of_each_other(url: str, label: str) -> None:
    """Two teams with one table would wait for each other's nodes."""
    place = parse_place(url)

    def within(prefix: str) -> Store:
        return opened(url_of(replace(place, prefix=f"{place.prefix}{prefix}")))

    stores = [within(prefix) for prefix in ("/one", "/two/x", "", "/one/x")]
    for store in stores:
        assert store.create(f"{label}/a", "1", 30).created == 1
    for store in stores:
        assert [r.key for r in store.list("").records] == [f"{label}/a"]


def test_a_table_that_vanishes_is_waited_for(new_table: str, label: str) -> None:
    """A restart of an emulator, or a mistake in AWS, would end every node's start."""
    init_table(new_table, Bounds())
    with Commands(new_table, label) as run:
        holder = run("acquire-lease", "--service-id=a", "--host=a")
        assert holder.wait() == 0
        waiter = run("acquire-lease", "--service-id=b", "--host=b")
        waiter.wait_said("waiting, position 1", HANG)
        place = parse_place(new_table)
        plain(place).delete_table(TableName=place.table)
        waiter.wait_said("does not exist", HANG)
        init_table(new_table, Bounds())
        assert waiter.wait() == 0
        assert "our ticket expired" in waiter.stderr

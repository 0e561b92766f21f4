"""A cluster that boots at once on DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.history.observer import split
from integration.simulation.cluster import Cluster
from integration.simulation.verdicts import (
    Change,
    assert_each_saw_the_earlier,
    assert_one_cluster,
    assert_orderly,
    most_at_once,
)
from integration.support.commands import HANG
from integration.support.dynamodb import (
    ELSEWHERE,
    DynamoDB,
    elsewhere,
    start_dynamodb,
)


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
        cluster.wait_up(HANG * 16)
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

"""What the observers make of records that are not judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from integration.history.rig import observe
from integration.support.stores import open_url
from service_monitor.net.calls import Bounds

KINDS = "etcd", "etcd2", "sqlite", "dynamodb"
SECONDS = 20.0


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give each kind of store."""
    if request.param == "dynamodb":
        yield request.getfixturevalue("dynamodb").make_table()
    elif request.param == "sqlite":
        yield f"sqlite://{tmp_path}/store.db"
    else:
        etcd = request.getfixturevalue("etcd")
        yield etcd.url if request.param == "etcd" else etcd.url_v2


def test_a_durable_record_is_no_ticket_that_was_left_behind(
    url: str, label: str
) -> None:
    """Each run would be judged by what its nodes leave on purpose, or by nothing."""
    with closing(open_url(url, Bounds())) as store:
        early = store.create(f"{label}/members/a", "{}", None)
        with observe(url) as observer:
            early = store.update(early, '{"a": 1}', None)
            late = store.create(f"{label}/members/b", "{}", None)
            store.delete(early)
            store.update(late, '{"a": 2}', 2)
            store.create(f"{label}/lease/a", '{"nonce": "1"}', 30)
            assert observer.wait(lambda: bool(observer.ticket(label, "a")), SECONDS)
            ours = {key for key in observer.live if key[0] == label.lower()}
        assert ours == {(label.lower(), "lease", "a")}
        assert observer.failed == ""

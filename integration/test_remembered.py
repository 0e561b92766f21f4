"""Members that are gone, on real stores: shown, waited for, forgotten."""

from __future__ import annotations

import json
import threading

import pytest

from integration.support.cli import clean_environment
from integration.support.commands import Outcome, ended
from integration.support.members import EVENTS, SINCE, remember
from integration.support.store_contract import MakeStore
from service_monitor.records import Registration, members_prefix, registration_key


@pytest.fixture(params=["etcd3", "etcd2", "dynamodb"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "dynamodb":
        return str(request.getfixturevalue("dynamodb").make_table())
    etcd = request.getfixturevalue("etcd")
    return str(etcd.url if request.param == "etcd3" else etcd.url_v2)


def test_a_member_that_is_gone(make_store: MakeStore, url: str, label: str) -> None:
    """An operator could not find out who is missing, or never let it be forgotten."""
    store = make_store()
    value = Registration("es-1", "host-es-1", "up", "200 OK", "n").to_json()
    registered = store.create(registration_key(label, "es-1"), value, 60)
    for name in "es-1", "es-2":
        remember(store, name, label=label, events=EVENTS)
    ours = {"SERVICE_MONITOR_STORE": url, "SERVICE_MONITOR_LABEL": label.upper()}

    def run(*argv: str) -> Outcome:
        return ended(argv, clean_environment(**ours))

    status = json.loads(run("status", "--format=json").out)["services"]
    shown = [(each["service_id"], each["state"], each["last_state"]) for each in status]
    assert shown == [("es-1", "up", None), ("es-2", "gone", "up")]
    assert [each["at"] for each in status[1]["events"]] == [EVENTS[0].at, SINCE]
    assert run("hosts", "--state=gone").out == "host-es-2\n"
    assert run("hosts").out == "host-es-1\n"

    refused = run("forget", "--service-id=es-1")
    assert refused.code == 1
    assert "es-1 lives on host-es-1, as it is registered" in refused.err
    threading.Timer(1, store.delete, [registered]).start()
    waited = run("hosts", "--state=gone", "--wait=2", "--timeout=20s")
    assert waited.out == "host-es-1,host-es-2\n"
    forgotten = [run("forget", f"--service-id=es-{number}") for number in (2, 2, 1)]
    assert [outcome.code for outcome in forgotten] == [0, 0, 0]
    assert "does not know es-2" in forgotten[1].err
    assert store.list(members_prefix(label)).records == ()

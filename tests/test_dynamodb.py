"""What DynamoDB answers, turned into what a caller should do next: botocore stubbed.

The contract runs against a real server, in integration/test_dynamodb.py.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from botocore.stub import Stubber

from integration.support.commands import Run
from integration.support.dynamodb import size_of
from integration.support.loopback import Serve, answering, status
from service_monitor.errors import (
    ConfigError,
    Conflict,
    KeyExists,
    RecordGone,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.calls import Stop
from service_monitor.recipes.lease import LOOK_LATER, LOOK_NEXT, WAITER_TTL
from service_monitor.recipes.session import RENEWALS
from service_monitor.records import Record, Snapshot, Ticket
from service_monitor.stores.dynamodb.aws import Aws, Place, parse_place
from service_monitor.stores.dynamodb.store import (
    FAST,
    SLOW,
    SLOWEST,
    DynamoStore,
    interval,
)
from service_monitor.stores.dynamodb.table import init_table
from service_monitor.stores.opening import open_store
from service_monitor.timing import now
from tests.test_docs import ROOT

EPOCH = 1_800_000_000
RECORD = Record("es/lease/a", "v", 3, 4)
FAILED = {"Code": "ConditionalCheckFailed", "Message": "no"}
FINE = {"Code": "None"}


def item(
    value: str = "v", created: int = 3, version: int = 4, ends: float = 60
) -> dict[str, Any]:
    texts = {"label": "es", "key": "lease/a", "value": value}
    numbers = {"created": created, "version": version}
    numbers |= {"alive_until": EPOCH + ends - 2, "dead_after": EPOCH + ends}  # type: ignore[dict-item]
    typed: dict[str, Any] = {name: {"S": text} for name, text in texts.items()}
    return typed | {name: {"N": str(number)} for name, number in numbers.items()}


COUNTER = {"n": {"N": "4"}, "last_label": {"S": "es"}, "last_key": {"S": "lease/b"}}


class Service:
    """The answers that DynamoDB is going to give, in this order."""

    def __init__(self, stop: Stop, prefix: str = "") -> None:
        self.store = DynamoStore(Place("es", prefix, "eu-central-1"), stop)
        self.store._transactions.known = True
        self._client = self.store._aws._connect()
        self.stub = Stubber(self._client)
        self.stub.activate()
        self.asked: list[dict[str, Any]] = []
        self._client.meta.events.register_first(
            "before-parameter-build.dynamodb",
            lambda params, **_: self.asked.append(params),
        )

    def _dated(self) -> dict[str, Any]:
        return {"HTTPHeaders": {"date": formatdate(EPOCH, usegmt=True)}}

    def gives(self, operation: str, **answer: Any) -> None:
        answer["ResponseMetadata"] = self._dated()
        self.stub.add_response(operation, answer)

    def finds(self, found: dict[str, Any] | None) -> None:
        self.gives("get_item", **({"Item": found} if found else {}))

    def refuses(
        self, operation: str, code: str, message: str = "no", status: int = 400
    ) -> None:
        self.stub.add_client_error(
            operation, code, message, status, response_meta=self._dated()
        )

    def cancels(self, *reasons: dict[str, str]) -> None:
        self.stub.add_client_error(
            "transact_write_items",
            "TransactionCanceledException",
            response_meta=self._dated(),
            modeled_fields={"CancellationReasons": list(reasons)},
        )


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture
def service(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    service = Service(stop)
    yield service
    service.stub.assert_no_pending_responses()
    service.store.close()


# the URL and the settings


def test_a_url_names_table_prefix_and_place() -> None:
    """Two clusters would meet in one queue, or one cluster in two."""
    assert parse_place("dynamodb://nodes") == Place("nodes")
    full = "DynamoDB://a.b-c_D/team/x?region=eu-west-1&endpoint=http://h:8000&profile=p"
    assert parse_place(full) == Place(
        "a.b-c_D", "/team/x", "eu-west-1", "http://h:8000", "p"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dynamodb://", "does not read as"),
        ("dynamodb:es-table", "does not read as"),
        ("dynamodb://ab", "3 to 255"),
        ("dynamodb://a b c", "does not read as"),
        ("dynamodb://täble", "does not read as"),
        ("dynamodb://user:pass@table", "does not read as"),
        ("dynamodb://table/../x", "does not read as"),
        ("dynamodb://table/a//b", "does not read as"),
        ("dynamodb://table#frag", "does not read as"),
        ("dynamodb://table?colour=red", "unknown option 'colour'"),
        ("dynamodb://table?region=", "needs region once"),
        ("dynamodb://table?region=a&region=b", "needs region once"),
        ("dynamodb://table?region=eu_west", "names no region"),
        ("dynamodb://table?endpoint=h:8000", "https://HOST"),
        ("dynamodb://table?endpoint=ftp://h", "https://HOST"),
        ("dynamodb://table?endpoint=http://h:0", "https://HOST"),
        ("dynamodb://table?endpoint=http://h/path", "https://HOST"),
        ("dynamodb://table?endpoint=http://[::1", "https://HOST"),
    ],
)
def test_a_wrong_url_is_told_at_once(run: Run, url: str, says: str) -> None:
    """A typing error would be looked for in AWS."""
    code, out, err = run("hosts", "--label=es", "--store", url)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_missing_region_is_a_usage_error(run: Run) -> None:
    """The store would be taken to be down."""
    code, _, err = run("status", "--store=dynamodb://table")
    assert (code, err.count("\n")) == (2, 1)
    assert "?region=" in err
    assert "AWS_REGION" in err


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A container on ECS, which sets AWS_REGION, would have to be told again."""
    monkeypatch.setenv(variable, "ap-south-1")
    store = DynamoStore(Place("table"), Stop())
    assert store._aws.endpoint().host == "dynamodb.ap-south-1.amazonaws.com"
    assert store._aws.where == "table table in ap-south-1"
    store.close()


def test_an_unknown_profile_is_a_usage_error(run: Run) -> None:
    """botocore's traceback would be the answer."""
    code, _, err = run("status", "--store=dynamodb://table?region=eu-west-1&profile=no")
    assert (code, err.count("\n")) == (2, 1)
    assert "(no) could not be found" in err


def test_boto3_that_is_not_there_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever installed without the extra would see an ImportError."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "service_monitor.stores.dynamodb.store")
    monkeypatch.delitem(sys.modules, "service_monitor.stores.dynamodb.aws")
    with pytest.raises(
        ConfigError, match=r"pip install 'service-monitor-lease\[dynamodb\]'"
    ):
        open_store("dynamodb://table?region=eu-west-1", Stop(), {})


def test_boto3_is_imported_for_its_own_urls_alone(run: Run) -> None:
    """Everybody would wait 0.3 s longer, and need boto3, for what few use."""
    code = "import sys, service_monitor.cli.app as c; c.main(['hosts', '--label=es'])"
    code += "; assert not any(m.startswith('boto') for m in sys.modules)"
    importlib.import_module("subprocess").run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={"SERVICE_MONITOR_STORE": "sqlite:///no/such/directory/x.db"},
    )


def test_missing_credentials_are_one_line(run: Run) -> None:
    """A host without its role would end in a traceback."""
    code, out, err = run("status", "--store=dynamodb://table?region=eu-west-1")
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert "the store refuses us: table table in eu-west-1: Unable to locate" in err


def test_nobody_there_is_unavailable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason would be botocore's, which leaves out what happened."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    url = "dynamodb://table?region=eu-west-1&endpoint=http://127.0.0.1:1"
    code, out, err = run("status", "--store", url)
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert "http://127.0.0.1:1: connection refused" in err


# refusals


@pytest.mark.parametrize(
    ("code", "message", "says"),
    [
        ("ResourceNotFoundException", "Requested resource not found", "`service-mon"),
        ("AccessDeniedException", "User: arn is not authorized", "is not authorized"),
        ("UnrecognizedClientException", "The security token is invalid", "is invalid"),
        (
            "ValidationException",
            "The provided key element does not match the schema",
            "was not made by `service-monitor init-store`",
        ),
        ("InvalidSignatureException", "The request signature does not match", "match"),
    ],
)
def test_a_refusal_is_asked_once_and_says_why(
    service: Service, code: str, message: str, says: str
) -> None:
    """A missing right would look like an outage, and be waited out."""
    service.refuses("query", code, message)
    with pytest.raises(StoreRefused, match=says) as refused:
        service.store.list("es/")
    assert "table es in eu-central-1" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_expired_token_is_read_anew_before_it_is_an_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `watch` would end with the first token, although there is a new one."""
    forgotten: list[int] = []
    monkeypatch.setattr(service.store._aws, "forget", lambda: forgotten.append(1))
    service.refuses("query", "ExpiredTokenException", "The security token has expired")
    service.gives("query", Items=[item()])
    assert service.store.list("es/").records
    service.refuses("query", "ExpiredTokenException", "The security token has expired")
    service.refuses("query", "ExpiredTokenException", "The security token has expired")
    with pytest.raises(StoreRefused, match="has expired"):
        service.store.list("es/")
    assert len(forgotten) == 2


def test_forgotten_credentials_are_read_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a restart would see the renewed ones."""
    service.store._aws.forget()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
    client = service.store._aws._connect()
    assert client._request_signer._credentials.access_key == "new"


def test_a_wrong_wall_clock_costs_one_request(service: Service) -> None:
    """A host that is an hour off could not start its service at all."""
    skewed = "Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z"
    service.refuses("query", "InvalidSignatureException", skewed)
    service.gives("query", Items=[])
    assert service.store.list("es/").records == ()


def test_answers_without_a_date_are_refused(service: Service) -> None:
    """Records would live and die by no clock at all."""
    service.stub.add_response("query", {"Items": []})
    with pytest.raises(StoreRefused, match="no Date"):
        service.store.list("es/")


def test_an_error_without_a_date_is_the_error_that_it_is(service: Service) -> None:
    """The page of a gateway that is down would be taken for a clock that is missing."""
    service.stub.add_client_error("query", "502", "Bad Gateway", 502)
    service.gives("query", Items=[item()])
    assert service.store.list("es/").records


@pytest.mark.parametrize("body", [b"<html>Maintenance</html>", b"", b"[]"])
@pytest.mark.parametrize(
    "command", [("status",), ("release-lease", "--label=es"), ("init-store",)]
)
def test_the_success_of_another_server_is_no_answer(
    run: Run,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    command: tuple[str, ...],
) -> None:
    """A web server's page would be an empty queue, and a write that took place."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    headers = f"Date: {formatdate(EPOCH, usegmt=True)}", "Connection: close"
    server = serve(answering(status("200 OK", *headers, body=body)))
    url = f"dynamodb://table?region=eu-west-1&endpoint={server.url}"
    code, out, err = run(*command, "--store", url)
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert f"{server.url}: that is not DynamoDB, by its answer" in err


def test_a_page_without_items_is_not_of_dynamodb(
    run: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A work-alike that answers `{}` would end in a traceback, and exit 70."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    kind = "Content-Type: application/x-amz-json-1.0"
    headers = f"Date: {formatdate(EPOCH, usegmt=True)}", kind, "Connection: close"
    server = serve(answering(status("200 OK", *headers, body=b"{}")))
    url = f"dynamodb://table?region=eu-west-1&endpoint={server.url}"
    for command in (
        ("status",),
        ("hosts", "--label=es"),
        ("acquire-lease", "--label=es", "--service-id=a", "--host=h"),
    ):
        code, out, err = run(*command, "--store", url)
        assert (code, out, err.count("\n")) == (69, "", 1)
        assert "the store refuses us" in err
        assert "that is not DynamoDB, by its answer" in err


def test_credentials_that_do_not_come_are_not_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A helper that hangs would hang `hosts`, and the start script with it."""
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = sleep 3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setattr("service_monitor.stores.dynamodb.aws.CALL_TIMEOUT", 0.3)
    begun = now()
    code, _, err = run("status", "--store=dynamodb://table?region=eu-west-1")
    assert now() - begun < 2.5
    assert (code, err.count("\n")) == (69, 1)


def test_a_value_that_is_too_long_is_told(service: Service) -> None:
    """Whoever publishes half a megabyte with --info would be told [None, None]."""
    service.finds(None)
    message = "Item size has exceeded the maximum allowed size"
    service.cancels(FINE, {"Code": "ValidationError", "Message": message})
    with pytest.raises(StoreRefused, match=f"CanceledException: {message}$"):
        service.store.create("es/lease/a", "v", 15)
    service.stub.add_response("update_item", {"ResponseMetadata": service._dated()})
    service.finds(None)
    service.store.list("es/lease/a")


# "not now"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ProvisionedThroughputExceededException", 400),
        ("RequestLimitExceeded", 400),
        ("ThrottlingException", 400),
        ("TransactionConflictException", 400),
        ("InternalServerError", 500),
        ("ServiceUnavailable", 503),
    ],
)
def test_throttling_is_waited_out(service: Service, code: str, status: int) -> None:
    """A moment of too many requests would send nodes out of the queue."""
    service.refuses("query", code, status=status)
    service.refuses("query", code, status=status)
    service.gives("query", Items=[item()])
    assert service.store.list("es/").records


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_transaction_in_the_way_of_another_is_tried_again(
    service: Service, reason: str
) -> None:
    """Of nodes that boot at the same moment all but one would fail."""
    service.finds(None)
    service.cancels({"Code": reason}, FINE)
    service.gives("transact_write_items")
    assert service.store.create("es/lease/a", "v", 15).created == 1


def test_throttling_without_end_is_an_outage(service: Service, stop: Stop) -> None:
    """A call would outlast the command's own timeout."""
    stop.limit(0.4)
    for _ in range(60):
        service.refuses("query", "ThrottlingException", "Rate exceeded")
    begun = now()
    with pytest.raises(StoreUnavailable, match="Rate exceeded"):
        service.store.list("es/")
    assert now() - begun < 2
    service.stub._queue.clear()


# writes and their conditions


def test_number_and_record_are_one_transaction(service: Service) -> None:
    """A later ticket could be seen before an earlier one, and both would hold."""
    service.finds(COUNTER)
    service.gives("transact_write_items")
    record = service.store.create("es/lease/a", "v", 15)
    assert (record.created, record.version) == (5, 5)
    counter, put, check = service.asked[1]["TransactItems"]
    assert counter["Update"]["ConditionExpression"] == "#n = :was"
    values = counter["Update"]["ExpressionAttributeValues"]
    assert (values[":was"], values[":new_n"]) == ({"N": "4"}, {"N": "5"})
    assert values[":new_last_key"] == {"S": "lease/a"}
    assert "attribute_not_exists(#key)" in put["Put"]["ConditionExpression"]
    assert put["Put"]["Item"]["created"] == {"N": "5"}
    # The record of number 4 may still be on its way, though its number is not.
    last = {"label": {"S": "es"}, "key": {"S": "lease/b"}}
    assert check["ConditionCheck"]["Key"] == last
    service.finds(COUNTER | {"last_key": {"S": "lease/a"}})
    service.gives("transact_write_items")
    service.store.update(record, "w", None)
    assert len(service.asked[3]["TransactItems"]) == 2  # one's own, written anyway


def test_what_is_out_of_time_is_not_written_any_more(service: Service) -> None:
    """A ticket whose time is over would be granted the lease after all."""
    service.finds(COUNTER)
    service.gives("transact_write_items")
    service.store.update(RECORD, "w", 60)
    service.gives("update_item")
    service.store.keep_alive(RECORD, 15)
    update = service.asked[1]["TransactItems"][1]["Update"]
    for write in update, service.asked[2]:
        condition = write["ConditionExpression"].split(" AND ")
        assert condition[:2] == ["#created = :created", "#version = :version"]
        assert condition[2:] == ["#dead_after > :now"]
        now_there = float(write["ExpressionAttributeValues"][":now"]["N"]) - EPOCH
        assert now_there < 0.9  # a second later it might be over


def test_all_reads_are_consistent(service: Service) -> None:
    """A node would not see who went before it."""
    service.finds(None)
    service.gives("query", Items=[])
    service.gives("scan", Items=[])
    for prefix in "es/lease/a", "es/lease/", "":
        service.store.list(prefix)
    assert [body["ConsistentRead"] for body in service.asked] == [True] * 3


def test_a_taken_number_is_no_refusal(service: Service) -> None:
    """The second of two that write at once would be told that the key exists."""
    service.finds(COUNTER)
    service.cancels(FAILED, FINE, FINE)
    service.finds(None)
    service.finds(COUNTER | {"n": {"N": "5"}})
    service.gives("transact_write_items")
    assert service.store.create("es/lease/a", "v", 15).created == 6


def test_a_create_repeated_after_a_lost_reply_is_a_success(service: Service) -> None:
    """A node would wait behind its own ticket."""
    service.finds(COUNTER)
    service.cancels(FAILED, FAILED, FINE)
    service.finds(item("mine", 4, 4))
    assert service.store.create("es/lease/a", "mine", 15).created == 4


def test_a_create_over_a_living_record_is_refused(service: Service) -> None:
    """Two nodes would hold one place."""
    service.finds(COUNTER)
    service.cancels(FINE, FAILED, FINE)
    service.finds(item("other"))
    with pytest.raises(KeyExists):
        service.store.create("es/lease/a", "mine", 15)


def test_an_update_repeated_after_a_lost_reply_is_a_success(service: Service) -> None:
    """A granted lease would be taken for somebody else's."""
    service.finds(COUNTER)
    service.cancels(FAILED, FAILED)
    service.finds(item("held", 3, 9))
    assert service.store.update(RECORD, "held", 60).version == 9


def test_an_update_of_what_changed_or_went_is_refused(service: Service) -> None:
    """Somebody else's write would be lost, or a dead ticket granted."""
    for found, error in (
        (item("other", 3, 9), Conflict),
        (item("v", 8, 8), RecordGone),
        (None, RecordGone),
    ):
        service.finds(COUNTER)
        service.cancels(FINE, FAILED)
        service.finds(found)
        with pytest.raises(error):
            service.store.update(RECORD, "held", 60)


def test_a_deletion_of_another_life_does_nothing(service: Service) -> None:
    """A newer start's lease would be freed."""
    service.refuses("delete_item", "ConditionalCheckFailedException")
    service.finds(item(created=8, version=8))
    service.store.delete(RECORD)
    service.refuses("delete_item", "ConditionalCheckFailedException")
    service.finds(item(version=9))
    with pytest.raises(Conflict):
        service.store.delete(RECORD)


def test_a_long_answer_is_read_to_its_end(service: Service) -> None:
    """The hosts past the first megabyte would not be joined."""
    key = {"label": {"S": "es"}, "key": {"S": "lease/a"}}
    service.gives("query", Items=[item(created=9)], LastEvaluatedKey=key)
    service.gives("query", Items=[item(created=7)])
    records = service.store.list("es/").records
    assert [record.created for record in records] == [7, 9]
    assert service.asked[1]["ExclusiveStartKey"] == key


def test_a_listing_of_all_leaves_other_prefixes_alone(service: Service) -> None:
    """The counter, or another team's queue, would be shown as ours."""
    labels = "es", "#", "team/es", "team/#"
    found = [item() | {"label": {"S": label}} for label in labels]
    service.gives("scan", Items=found)
    assert [r.key for r in service.store.list("").records] == ["es/lease/a"]


def test_a_listing_within_a_prefix_leaves_what_has_none_alone(
    service: Service, stop: Stop
) -> None:
    """`status` of one team would show another team's queue as its own."""
    team = Service(stop, "/team")
    labels = "es", "#", "team/es", "team/#", "team/a/es"
    found = [item(n) | {"label": {"S": n}} for n in labels]
    team.gives("scan", Items=found)
    assert [r.value for r in team.store.list("").records] == ["team/es"]


@pytest.mark.parametrize("missing", ["value", "created", "dead_after"])
def test_a_strangers_item_is_left_aside_or_told(service: Service, missing: str) -> None:
    """One item put there by hand would end all commands of its label in a traceback."""
    stranger = item()
    del stranger[missing]
    service.gives("query", Items=[item("ours"), stranger])
    assert [r.value for r in service.store.list("es/").records] == ["ours"]
    service.finds(stranger)
    told = "label 'es' and key 'lease/a' is not what we write there: delete it"
    with pytest.raises(StoreRefused, match=told):
        service.store.list("es/lease/a")
    service.finds({"label": {"S": "#"}, "key": {"S": "counter"}})
    with pytest.raises(StoreRefused, match="label '#' and key 'counter' is not"):
        service.store.create("es/lease/a", "v", 15)


def test_a_write_without_an_answer_comes_to_nothing(service: Service) -> None:
    """A ticket would turn up after its owner has left: nobody would ever take it back.

    Its number is used up before the look that tells whether it has arrived.
    """
    service.finds(COUNTER)
    service.refuses("transact_write_items", "AccessDeniedException")  # or any end
    with pytest.raises(StoreRefused):
        service.store.create("es/lease/a", "v", 15)
    service.gives("update_item")
    service.finds(None)
    assert service.store.list("es/lease/a").records == ()
    fence = service.asked[2]
    assert fence["Key"] == {"label": {"S": "#"}, "key": {"S": "counter"}}
    assert fence["ConditionExpression"] == "#n = :was"
    assert fence["ExpressionAttributeValues"] == {
        ":was": {"N": "4"},
        ":new_n": {"N": "5"},
    }
    service.finds(None)  # and it is settled
    service.store.list("es/lease/a")


def test_a_refused_write_may_have_an_earlier_try_under_way(service: Service) -> None:
    """It would be carried out once the record in its way has gone: after we have."""
    service.finds(COUNTER)
    service.refuses("transact_write_items", "InternalServerError", status=500)
    service.cancels(FINE, FAILED, FINE)  # its number is still free
    service.finds(item("other"))
    with pytest.raises(KeyExists):
        service.store.create("es/lease/a", "v", 15)
    service.gives("update_item")
    service.finds(None)
    service.store.list("es/lease/a")
    assert service.asked[-2]["Key"] == {"label": {"S": "#"}, "key": {"S": "counter"}}


def test_the_very_first_number_can_be_used_up_too(service: Service) -> None:
    """The next write would look for the record of a number that has none."""
    service.finds(None)
    service.refuses("transact_write_items", "AccessDeniedException")
    with pytest.raises(StoreRefused):
        service.store.create("es/lease/a", "v", 15)
    service.refuses("update_item", "ConditionalCheckFailedException")  # it did arrive
    service.finds(item())
    service.store.list("es/lease/a")
    service.finds({"n": {"N": "1"}})
    service.gives("transact_write_items")
    assert service.store.create("es/lease/a", "v", 15).created == 2
    assert len(service.asked[-1]["TransactItems"]) == 2


# time


def test_a_dead_record_is_deleted_before_it_counts_as_gone(service: Service) -> None:
    """Its owner, waking up, could still turn it into the lease: two would hold."""
    service.gives("query", Items=[item(ends=-3)])
    service.gives("delete_item")
    assert service.store.list("es/").records == ()
    assert service.asked[1]["ConditionExpression"] == "#dead_after <= :now"


def test_a_record_renewed_at_the_last_moment_is_alive(service: Service) -> None:
    """A waiter would lose its place to a look that came a little early."""
    service.gives("query", Items=[item(ends=-3)])
    service.refuses("delete_item", "ConditionalCheckFailedException")
    service.finds(item(ends=15))
    assert service.store.list("es/").records


def test_a_record_whose_second_is_not_over_is_alive(service: Service) -> None:
    """The header counts in whole seconds: half of all would die too early."""
    service.gives("query", Items=[item(ends=0.5), item(created=9, ends=-0.05)])
    assert len(service.store.list("es/").records) == 2


def test_time_left_errs_on_the_short_side(service: Service) -> None:
    """A holder would go on when others already count it as gone."""
    service.finds(item(ends=60))
    assert 56 < service.store.time_left(RECORD) <= 58
    service.finds(item(created=9))
    assert service.store.time_left(RECORD) == 0
    service.finds(None)
    assert service.store.time_left(RECORD) == 0


def test_ends_are_written_wide(service: Service) -> None:
    """A live record would appear dead to whoever has a better clock."""
    service.finds(COUNTER)
    service.gives("transact_write_items")
    service.store.create("es/lease/a", "v", 15)
    put = service.asked[1]["TransactItems"][1]["Put"]["Item"]
    alive, dead = (float(put[n]["N"]) - EPOCH for n in ("alive_until", "dead_after"))
    assert alive <= 15
    assert dead >= 16
    assert int(put["litter_after"]["N"]) > EPOCH + 3600


# waiting

ENDS = "alive_until", "dead_after", "litter_after"


def queue(count: int) -> Snapshot:
    return Snapshot(tuple(Record(f"es/lease/{n}", "", n, n) for n in range(count)))


def test_who_is_next_looks_often_and_the_others_seldom() -> None:
    """A hand-over would take seconds, or a hundred waiters cost thousands of reads."""
    waits = [interval(f"es/lease/{n}", queue(100), 5.0) for n in range(99)]
    assert waits[:5] == [FAST, 2 * FAST, 4 * FAST, SLOW, SLOW]
    assert waits[-1] == SLOWEST
    assert sum(1 / wait for wait in waits if wait < 5) < 10


def test_a_hundred_waiters_read_what_is_documented() -> None:
    """The bill, and the throttling, would not be what docs/dynamodb.md says."""
    snapshot = Snapshot(tuple(Record(f"es/lease/{n}", "", n, n) for n in range(101)))
    looks = lists = 0.0
    for place in range(1, 101):
        patience = LOOK_NEXT if place == 1 else LOOK_LATER
        every = interval(f"es/lease/{place - 1}", snapshot, patience)
        looks += 1 / every if every < patience else 0
        lists += 1 / patience
    name = "ip-10-0-12-123.eu-central-1.compute.internal"
    ticket = Ticket(name, "10.0.12.123", "waiting", "0" * 16, 240.0)
    found = item(ticket.to_json()) | {"key": {"S": f"lease/{name}"}}
    found |= {name: {"N": f"{EPOCH}.000000"} for name in ENDS}
    units = -(-101 * size_of(found) // 4096)
    page = (ROOT / "docs/dynamodb.md").read_text()
    (row,) = re.findall(r"together, for a second \| (\d+) \| (\d+) \|", page)
    assert looks + units * lists == pytest.approx(int(row[0]), rel=0.1)
    assert int(row[1]) == 100 * RENEWALS / WAITER_TTL
    assert f"one query, {units} units" in page
    (told,) = re.findall(r"send (\d+) reads a second", page)
    assert looks + lists == pytest.approx(int(told), rel=0.1)


def test_waiting_for_a_whole_prefix_goes_by_the_patience() -> None:
    """With several slots the next in line would be as slow as `hosts --wait`."""
    assert interval("es/lease/", queue(3), 1.0) == FAST
    assert interval("es/hosts/", queue(3), 5.0) == 1.25
    assert interval("es/hosts/", queue(3), 60.0) == SLOW


def test_an_idle_watch_looks_twice_between_its_probes() -> None:
    """A thousand of them would cost what their looks do not need to."""
    assert interval("es/lease/a", Snapshot(()), 5.0) == 2.0
    assert interval("es/lease/a", Snapshot(()), 15.0) == 6.0
    assert interval("es/lease/a", Snapshot(()), 900.0) == SLOWEST


def test_what_gets_on_ahead_is_looked_at_more_often(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has become the next in line would be as slow as the last."""
    pauses: list[float] = []
    real = service.store._stop.wait

    def wait(seconds: float, waker: Event | None = None) -> None:
        if waker is None:
            pauses.append(seconds)
        else:  # of a call
            real(seconds, waker)

    monkeypatch.setattr(service.store._stop, "wait", wait)
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    service.finds(item(version=4))
    service.finds(item("held", version=5))
    service.finds(None)
    ahead = [Record(f"es/lease/{n}", "", n, n) for n in range(3)]
    since = Snapshot((*ahead, RECORD))
    service.store.wait(RECORD.key, since, 60, gone=True)
    assert pauses == [SLOW, SLOW, FAST]


# the table

KEYS = {"label": "HASH", "key": "RANGE"}
ACTIVE: dict[str, Any] = {
    "TableStatus": "ACTIVE",
    "KeySchema": [{"AttributeName": n, "KeyType": kind} for n, kind in KEYS.items()],
    "AttributeDefinitions": [{"AttributeName": n, "AttributeType": "S"} for n in KEYS],
}
DISABLED = {"TimeToLiveStatus": "DISABLED"}
BY_LITTER = {"TimeToLiveStatus": "ENABLED", "AttributeName": "litter_after"}


@pytest.fixture
def init(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Give a function that makes the table of the service."""
    monkeypatch.setattr(Aws, "_connect", lambda _: service._client)
    monkeypatch.setattr("service_monitor.stores.dynamodb.table._LOOK", 0.0)
    return lambda: init_table("dynamodb://nodes?region=eu-central-1", Stop())


def test_a_table_that_another_one_makes_meanwhile_will_do(
    service: Service, init: Callable[[], list[str]]
) -> None:
    """Of hosts that all run `init-store` at their first boot all but one would fail."""
    service.refuses("describe_table", "ResourceNotFoundException")
    service.refuses("create_table", "ResourceInUseException", "Table already exists")
    service.gives("describe_table", Table=ACTIVE | {"TableStatus": "CREATING"})
    service.gives("describe_table", Table=ACTIVE)
    service.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    service.refuses("update_time_to_live", "ValidationException", "already enabled")
    service.gives("describe_time_to_live", TimeToLiveDescription=BY_LITTER)
    assert len(init()) == 2


def test_a_table_that_is_being_made_is_waited_for(
    service: Service, init: Callable[[], list[str]]
) -> None:
    """The next line of a script would find no table."""
    for state in "CREATING", "CREATING", "ACTIVE":
        service.gives("describe_table", Table=ACTIVE | {"TableStatus": state})
    service.gives("describe_time_to_live", TimeToLiveDescription=BY_LITTER)
    assert init() == []


def test_a_table_that_is_being_deleted_is_told(
    service: Service, init: Callable[[], list[str]]
) -> None:
    """It would pass for ready, and be gone a moment later."""
    service.gives("describe_table", Table=ACTIVE | {"TableStatus": "DELETING"})
    with pytest.raises(StoreUnavailable, match="is being deleted"):
        init()


def test_a_time_to_live_by_something_else_is_told(
    service: Service, init: Callable[[], list[str]]
) -> None:
    """Dead items would stay for ever, in a table that counts as ready."""
    service.gives("describe_table", Table=ACTIVE)
    service.gives("describe_table", Table=ACTIVE)
    other = BY_LITTER | {"AttributeName": "ends"}
    service.gives("describe_time_to_live", TimeToLiveDescription=other)
    with pytest.raises(StoreRefused, match="by ends, not litter_after"):
        init()


def test_a_refused_time_to_live_is_told(
    service: Service, init: Callable[[], list[str]]
) -> None:
    """A missing right would pass for a table that is ready."""
    service.gives("describe_table", Table=ACTIVE)
    service.gives("describe_table", Table=ACTIVE)
    service.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    service.refuses("update_time_to_live", "AccessDeniedException", "not authorized")
    service.gives("describe_time_to_live", TimeToLiveDescription=DISABLED)
    with pytest.raises(StoreRefused, match="not authorized"):
        init()


def test_init_store_of_other_stores_has_nothing_to_do(run: Run) -> None:
    """One line of provisioning could not serve all of a team's stores."""
    for url in "etcd://h", "etcd2s://h", "sqlite:///tmp/x.db":
        code, out, err = run("init-store", "--store", url)
        assert (code, out, err) == (0, "nothing to make: this store is ready\n", "")
    assert run("init-store", "--store=ftp://h").code == 2
    assert run("init-store", "--store=dynamodb://nodes").code == 2

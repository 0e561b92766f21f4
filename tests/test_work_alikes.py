"""Services that speak DynamoDB's API and lack a part of it, played by a server."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConfigParseError

from integration.support.commands import HANG, Run
from integration.support.loopback import Serve
from integration.support.stores import init_url, open_url
from integration.support.work_alike import (
    DENIED,
    NO_TABLE,
    NUMBER,
    TABLE,
    UNKNOWN,
    Answer,
    WorkAlike,
    error,
)
from service_monitor.errors import LocalLack, StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.node.probe import Result
from service_monitor.node.pulse import Pulse
from service_monitor.node.startup_lease import AnyOfOurs
from service_monitor.node.watcher import Rhythm, Watched, Watcher
from service_monitor.recipes.publisher import Service
from service_monitor.stores.dynamodb import table as dynamodb_table
from service_monitor.stores.dynamodb.refusals import UnknownOperation
from service_monitor.stores.dynamodb.store import DynamoStore
from service_monitor.timing import now

CLEANED = {"TimeToLiveStatus": "ENABLED", "AttributeName": "litter_after"}
WRITTEN = NUMBER | {"last_label": {"S": "es"}, "last_key": {"S": "lease/b"}}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "accesskey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretkey")


@pytest.fixture
def there(serve: Serve) -> WorkAlike:
    return WorkAlike(serve)


@pytest.fixture
def opened(there: WorkAlike) -> Iterator[DynamoStore]:
    store = open_url(there.url, Bounds(), {})
    assert isinstance(store, DynamoStore)
    yield store
    store.close()


NO_TRANSACTIONS = (
    "the store refuses us: table nodes in r: TransactWriteItems is not known there "
    "(UnknownOperationException), and nothing works without it: use DynamoDB itself"
)


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "command",
    [
        "hosts --label=es",
        "hosts --label=es --wait",
        "status",
        "status --label=es",
        "release-lease --label=es --service-id=a",
        "acquire-lease --label=es --service-id=a --host=h",
        "run --label=es --service-id=a --host=h --monitor-url=http://h:1 -- true",
        "init-store",
        "init-store --dry-run",
    ],
)
@pytest.mark.parametrize("counter", [{}, {"Item": NUMBER}], ids=["new", "used up"])
def test_without_transactions_no_command_waits_or_says_nobody(
    run: Run, there: WorkAlike, command: str, counter: dict[str, object]
) -> None:
    """Each node would wait for six minutes, and then found a cluster of its own."""
    there.answers["GetItem"] = 200, counter
    name, *argv = command.split()
    begun = now()
    code, out, err = run(name, f"--store={there.url}", *argv)
    assert now() - begun < HANG  # and not six minutes
    assert (code, out) == (69, "")
    assert NO_TRANSACTIONS in err
    assert "deregistered" not in err
    assert "take the ticket back" not in err
    assert "CreateTable" not in there.asked
    assert "UpdateItem" not in there.asked  # no number is used up by what never arrives


@pytest.mark.parametrize(
    "said",
    [
        UNKNOWN,
        error("UnknownOperation"),
        error("NotImplemented", "later", 501),
        error("SomethingElse", "later", 501),
        error("NotImplementedException", "later"),
    ],
)
def test_each_way_to_say_so_is_understood(
    there: WorkAlike, opened: DynamoStore, said: Answer
) -> None:
    """It would be taken for a server that is broken for a while."""
    there.answers["TransactWriteItems"] = said
    with pytest.raises(UnknownOperation, match="TransactWriteItems is not known there"):
        opened.list("es/")


@pytest.mark.parametrize(
    "said",
    [
        (200, {}),
        DENIED,
        error("ValidationException", "conditions alone are no transaction"),
        error("TransactionCanceledException", "cancelled [ConditionalCheckFailed]"),
    ],
)
def test_where_they_are_known_nobody_is_the_answer(
    there: WorkAlike, opened: DynamoStore, said: Answer
) -> None:
    """The first node of a new table would be told that the store is broken."""
    there.answers["TransactWriteItems"] = said
    assert opened.list("es/").records == ()
    assert opened.list("es/").records == ()
    assert there.asked.count("TransactWriteItems") == 1
    assert there.asked.count("GetItem") == 1


def test_a_table_that_was_written_to_is_not_asked(
    there: WorkAlike, opened: DynamoStore
) -> None:
    """Every `hosts` would cost a write's units."""
    there.answers["GetItem"] = 200, {"Item": WRITTEN}
    assert opened.list("es/").records == ()
    assert "TransactWriteItems" not in there.asked


def test_a_watch_says_what_is_wrong_and_never_that_it_deregistered(
    there: WorkAlike, caplog: pytest.LogCaptureFixture
) -> None:
    """It saw its service up, could not write, and logged that it had deregistered."""
    bounds = Bounds()
    store = open_url(there.url, bounds, {})

    def probe() -> Result:
        bounds.stop.request()
        return Result(True, "200 OK")

    with caplog.at_level(logging.INFO):
        watched = Watched(Service("es", "b", "h"), probe, Rhythm(0.1))
        Watcher(store, watched, AnyOfOurs(), Pulse(15.0), bounds).run()
    store.close()
    said = "the store refuses us, still probing: table nodes in r: Transact"
    assert said in caplog.text
    assert "b is not registered and never was" in caplog.text
    assert "deregister" not in caplog.text


@pytest.mark.parametrize(
    "command", ["acquire-lease", "run --monitor-url=http://h:1 -- true", "hosts --wait"]
)
@pytest.mark.parametrize(
    ("said", "says"),
    [
        (NO_TABLE, "nodes in r does not exist: `service-monitor init-store` makes it"),
        (DENIED, "AccessDeniedException: User: arn is not authorized to perform: it"),
        (
            error("UnrecognizedClientException", "invalid"),
            "are the access key, ",
        ),
        (error("InvalidSignatureException", "no"), "is the secret key that of the acc"),
        (error("ExpiredTokenException", "expired"), "expired: renew the session"),
    ],
)
def test_no_refusal_at_the_first_contact_is_waited_out(
    run: Run, there: WorkAlike, command: str, said: Answer, says: str
) -> None:
    """Six minutes passed before anybody was told that the table was never made."""
    for operation in "Query", "GetItem", "TransactWriteItems":
        there.answers[operation] = said
    name, *argv = command.split()
    who = [] if name == "hosts" else ["--service-id=a", "--host=h"]
    begun = now()
    code, out, err = run(name, "--label=es", *who, f"--store={there.url}", *argv)
    assert now() - begun < HANG  # and not six minutes
    assert (code, out) == (69, "")
    assert says in err.splitlines()[-1]


@pytest.mark.parametrize("kind", ["InternalServerError", "ThrottlingException"])
def test_what_may_pass_is_waited_out(run: Run, there: WorkAlike, kind: str) -> None:
    """A moment of too many requests would fail a start."""
    there.answers["Query"] = error(kind, "slow down")
    options = "--label=es", "--service-id=a", "--host=h", "--acquire-timeout=1s"
    code, _, err = run("acquire-lease", *options, f"--store={there.url}")
    assert code == 1
    assert "the store does not serve us, trying again: " in err


def test_settings_that_break_later_are_waited_out(
    opened: DynamoStore, there: WorkAlike, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of profiles that is being rewritten would end each `watch` for good."""
    there.answers["TransactWriteItems"] = 200, {}
    opened.list("es/")
    there.answers["Query"] = error("ExpiredTokenException", "expired")

    def session(**_: object) -> None:
        raise ConfigParseError(path="/root/.aws/config")

    monkeypatch.setattr("boto3.Session", session)
    with pytest.raises(StoreRefused, match=r"nodes in r: AWS settings: Unable"):
        opened.list("es/")
    monkeypatch.undo()
    there.answers["Query"] = 200, {"Items": []}
    assert opened.list("es/").records == ()


# init-store


def made_in_the_end(there: WorkAlike) -> None:
    """Let the table be missing until it is made."""

    def table() -> Answer:
        made = "CreateTable" in there.asked
        return (200, {"Table": TABLE}) if made else NO_TABLE

    there.answers |= {
        "DescribeTable": table,
        "TransactWriteItems": NO_TABLE,
        "DescribeTimeToLive": (200, {"TimeToLiveDescription": CLEANED}),
    }


MADE = (
    "Made so far: table nodes in r: keys label and key, billed on demand, without "
    "point-in-time recovery"
)
UNMADE = "; not made: table nodes in r: time to live by litter_after. "


@pytest.mark.parametrize(
    ("operation", "said", "says"),
    [
        ("DescribeTimeToLive", UNKNOWN, "DescribeTimeToLive is not known there"),
        ("DescribeTimeToLive", DENIED, "DescribeTimeToLive: AccessDeniedException"),
        ("UpdateTimeToLive", DENIED, "UpdateTimeToLive: AccessDeniedException: User"),
    ],
)
def test_what_stops_half_way_says_what_was_made(
    run: Run, there: WorkAlike, operation: str, said: Answer, says: str
) -> None:
    """Nobody would know of the table, which is then paid for."""
    made_in_the_end(there)
    disabled = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    there.answers["DescribeTimeToLive"] = 200, disabled
    there.answers[operation] = said
    code, out, err = run("init-store", f"--store={there.url}")
    assert (code, out, err.count("\n")) == (69, "", 1)
    assert f"the store refuses us: table nodes in r: {says}" in err
    assert UNMADE + MADE in err


def test_an_outage_half_way_is_told_as_one(there: WorkAlike) -> None:
    """Who repeats it would not be told that the table is there."""
    made_in_the_end(there)
    there.answers["DescribeTimeToLive"] = error("InternalServerError", "oh", 500)
    with pytest.raises(StoreUnavailable, match=r"oh; not made: .* Made so far: table"):
        init_url(there.url, Bounds(), call_timeout=2.5)


def test_a_lack_half_way_says_what_was_made(
    there: WorkAlike, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know of the table, which is then paid for."""
    made_in_the_end(there)

    def lack(*_: object) -> bool:
        raise LocalLack("this machine lacks memory")

    monkeypatch.setattr(dynamodb_table._Table, "_is_cleaned_up", lack)
    with pytest.raises(LocalLack, match=r"memory; not made: .* Made so far: table"):
        init_url(there.url, Bounds())


def test_what_may_not_be_made_is_not_said_to_be(there: WorkAlike) -> None:
    """An operator would look for a table that is not there."""
    made_in_the_end(there)
    there.answers["CreateTable"] = DENIED
    with pytest.raises(StoreRefused, match=r"CreateTable: Access.*: nothing$"):
        init_url(there.url, Bounds())


def test_a_whole_service_gets_its_table(there: WorkAlike) -> None:
    """The question for transactions must not stand in the way."""
    made_in_the_end(there)
    assert init_url(there.url, Bounds()) == [MADE.removeprefix("Made so far: ")]


# other refusals


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (DENIED, "TransactWriteItems: AccessDeniedException: .*: let our role do that"),
        (
            error("UnrecognizedClientException", "The token is invalid."),
            "TransactWriteItems: UnrecognizedClientException: The token is invalid.: a",
        ),
        (error("NeverHeardOf", "no"), "Items: NeverHeardOf: no: look that code up in"),
        (error("NeverHeardOf"), "Items: NeverHeardOf: look that code up in the serv"),
        ((403, {}), "TransactWriteItems: 403: is that DynamoDB, or something on the"),
    ],
)
def test_a_refusal_names_operation_cause_and_remedy(
    there: WorkAlike, opened: DynamoStore, said: Answer, says: str
) -> None:
    """A bare code ended the line: nobody knew what had been asked, nor what to do."""
    there.answers["TransactWriteItems"] = said
    with pytest.raises(StoreRefused, match=says):
        opened.create("es/lease/a", "v", 15)

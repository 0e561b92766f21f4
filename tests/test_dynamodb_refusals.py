"""What DynamoDB's errors mean: refused, not now, or no DynamoDB at all."""

from __future__ import annotations

from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from integration.support.commands import HANG, Run
from integration.support.loopback import Serve, answering, status
from integration.support.stubbed_dynamodb import EPOCH, FINE, StubbedService, item
from service_monitor.cli import opening
from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.stores.opening import open_store
from service_monitor.timing import now

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
    dynamo: StubbedService, code: str, message: str, says: str
) -> None:
    """A missing right would look like an outage, and be waited out."""
    dynamo.refuses("query", code, message)
    with pytest.raises(StoreRefused, match=says) as refused:
        dynamo.store.list("es/")
    assert "table es in eu-central-1" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_expired_token_is_read_anew_before_it_is_an_error(
    dynamo: StubbedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `watch` would end with the first token, although there is a new one."""
    forgotten: list[int] = []
    monkeypatch.setattr(dynamo.store._aws, "forget", lambda: forgotten.append(1))
    dynamo.refuses("query", "ExpiredTokenException", "The security token has expired")
    dynamo.gives("query", Items=[item()])
    assert dynamo.store.list("es/").records
    dynamo.refuses("query", "ExpiredTokenException", "The security token has expired")
    dynamo.refuses("query", "ExpiredTokenException", "The security token has expired")
    with pytest.raises(StoreRefused, match="has expired"):
        dynamo.store.list("es/")
    assert len(forgotten) == 2


def test_forgotten_credentials_are_read_again(
    dynamo: StubbedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a restart would see the renewed ones."""
    dynamo.store._aws.forget()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
    client = dynamo.store._aws._connect()
    assert client._request_signer._credentials.access_key == "new"


def test_a_wrong_wall_clock_costs_one_request(dynamo: StubbedService) -> None:
    """A host that is an hour off could not start its service at all."""
    skewed = "Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z"
    dynamo.refuses("query", "InvalidSignatureException", skewed)
    dynamo.gives("query", Items=[])
    assert dynamo.store.list("es/").records == ()


def test_answers_without_a_date_are_refused(dynamo: StubbedService) -> None:
    """Records would live and die by no clock at all."""
    dynamo.stub.add_response("query", {"Items": []})
    with pytest.raises(StoreRefused, match="no Date"):
        dynamo.store.list("es/")


def test_an_error_without_a_date_is_the_error_that_it_is(
    dynamo: StubbedService,
) -> None:
    """The page of a gateway that is down would be taken for a clock that is missing."""
    dynamo.stub.add_client_error("query", "502", "Bad Gateway", 502)
    dynamo.gives("query", Items=[item()])
    assert dynamo.store.list("es/").records


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
    config.write_text("[default]\ncredential_process = sleep 20\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    hasty = partial(open_store, call_timeout=0.3)
    monkeypatch.setattr(opening, "open_store", hasty)
    begun = now()
    code, _, err = run("status", "--store=dynamodb://table?region=eu-west-1")
    assert now() - begun < HANG / 2
    assert (code, err.count("\n")) == (69, 1)


def test_a_value_that_is_too_long_is_told(dynamo: StubbedService) -> None:
    """Whoever publishes half a megabyte with --info would be told [None, None]."""
    dynamo.finds(None)
    message = "Item size has exceeded the maximum allowed size"
    dynamo.cancels(FINE, {"Code": "ValidationError", "Message": message})
    with pytest.raises(StoreRefused, match=f"CanceledException: {message}$"):
        dynamo.store.create("es/lease/a", "v", 15)
    dynamo.stub.add_response("update_item", {"ResponseMetadata": dynamo._dated()})
    dynamo.finds(None)
    dynamo.store.list("es/lease/a")


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
def test_throttling_is_waited_out(
    dynamo: StubbedService, code: str, status: int
) -> None:
    """A moment of too many requests would send nodes out of the queue."""
    dynamo.refuses("query", code, status=status)
    dynamo.refuses("query", code, status=status)
    dynamo.gives("query", Items=[item()])
    assert dynamo.store.list("es/").records


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_transaction_in_the_way_of_another_is_tried_again(
    dynamo: StubbedService, reason: str
) -> None:
    """Of nodes that boot at the same moment all but one would fail."""
    dynamo.finds(None)
    dynamo.cancels({"Code": reason}, FINE)
    dynamo.gives("transact_write_items")
    assert dynamo.store.create("es/lease/a", "v", 15).created == 1


def test_throttling_without_end_is_an_outage(dynamo: StubbedService) -> None:
    """A call would outlast the command's own timeout."""
    for _ in range(60):
        dynamo.refuses("query", "ThrottlingException", "Rate exceeded")
    begun, why = now(), pytest.raises(StoreUnavailable, match="Rate exceeded")
    with dynamo.bounds.within(0.4), why:
        dynamo.store.list("es/")
    assert now() - begun < 4  # a call that nothing bounds takes 5 s
    dynamo.stub._queue.clear()

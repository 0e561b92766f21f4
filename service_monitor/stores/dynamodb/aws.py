"""One request to DynamoDB through boto3, signed without a wall clock.

Requests are signed by the time that the service's answers are dated with: a host whose
clock is an hour off is let in on its second try.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import auth
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from service_monitor.errors import (
    ConfigError,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.net.addresses import in_url
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.lacks import lack_in
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.dynamodb import credentials as aws_credentials
from service_monitor.stores.dynamodb.clock import StoreClock
from service_monitor.stores.dynamodb.connect import connect_side_by_side
from service_monitor.stores.dynamodb.place import DynamoPlace
from service_monitor.stores.dynamodb.refusals import in_boto3, unusable
from service_monitor.stores.endpoint import Endpoint
from service_monitor.timing import now

ATTEMPT = 2.0
"""Seconds for one request: a silent connection must not use up the whole call."""
_SIGNER = "service-monitor"
_ANSWERS = ("application/x-amz-json", "application/cbor")
"""What DynamoDB's answers are: the first today, the second if botocore asks for it."""


class Unreadable(Exception):
    """boto3 could not make sense of the AWS settings; `cause` is its own error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("AWS settings that boto3 cannot read")
        self.cause = cause


@contextmanager
def _reading_settings() -> Iterator[None]:
    """Tell what boto3 raises over files and programs from a mistake of ours.

    Only for calls that read the settings: it has no errors of its own for most of what
    may be wrong in there. Raises `Unreadable`.
    """
    try:
        yield
    except (BotoCoreError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(error) from error


class _Signer(auth.SigV4Auth):  # type: ignore[misc]
    """Signs by the store's time once that is known, for this machine's may be wrong."""

    # No hook of botocore's does it: `add_auth` reads the wall clock after the last one.
    def add_auth(self, request: Any) -> None:
        aws_credentials.check_to_be_sent(self.credentials)
        super().add_auth(request)

    def _modify_request_before_signing(self, request: Any) -> None:
        clock: StoreClock = request.context["store_clock"]
        if clock.known:
            moment = datetime.fromtimestamp(clock.latest(), UTC)
            request.context["timestamp"] = moment.strftime(auth.SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


auth.AUTH_TYPE_MAPS[_SIGNER] = _Signer
connect_side_by_side()


class Aws:
    """One DynamoDB table's API; `clock` learns from every answer."""

    def __init__(self, place: DynamoPlace, bounds: Bounds) -> None:
        aws_credentials.check_environment(os.environ, place.profile)
        self.clock = StoreClock()
        self._place = place
        self._bounds = bounds
        self._lock = threading.Lock()
        self._client: Any = None
        self._credentials: Any = None  # those of the client
        self._session = self._new_session()
        if not self._session.region_name:
            raise ConfigError(
                f"store dynamodb://{place.table} names no region: add ?region=... or "
                "set AWS_REGION"
            )

    @property
    def where(self) -> str:
        """Name table and region, for messages."""
        return f"table {self._place.table} in {self._session.region_name}"

    def endpoint(self, seconds: float = CALL_TIMEOUT) -> Endpoint:
        """Return where the requests go; looks for credentials, sends nothing there.

        Blocks up to so many seconds. Raises `StoreError`, `LocalLack`, and
        `Stopped` at once when the stop is requested.
        """
        try:
            client = bounded(self._connect, seconds, self._bounds, waits=True)
        except Unreadable as error:
            raise unusable(self.where, error.cause) from None
        except OSError as error:
            raise self.silence(describe(error)) from error
        return _endpoint_of(client)

    def close(self) -> None:
        """End the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def send(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Send one request, and return its answer.

        Blocks without a bound of ours. Raises `Unreadable`, botocore's errors, and
        `StoreRefused` for what is not DynamoDB or tells no time.
        """
        client = self._connect()
        with _reading_settings():  # here, for the signer's caller does not tell
            if self._credentials is not None:
                self._credentials.get_frozen_credentials()
        sent = now()
        try:
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
        except ClientError as error:
            with suppress(ValueError):  # a gateway's error need not be dated
                self._learn(error.response, sent)
            raise
        try:
            self._learn(answer, sent)
        except ValueError:
            raise StoreRefused(
                f"{self.where}: its answers carry no Date, the clock that we go by"
            ) from None
        return answer

    def _learn(self, answer: dict[str, Any], sent: float) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self.clock.learn(headers.get("date", ""), sent, now())

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_session(self) -> Any:
        region = self._place.region or os.environ.get("AWS_REGION") or None
        try:
            return boto3.Session(profile_name=self._place.profile, region_name=region)
        except BotoCoreError as error:
            if lack := lack_in(error, unclear=True):  # a file that could not be opened
                raise lack from error
            raise ConfigError(f"AWS settings: {in_boto3(error)}") from None

    def _new_client(self) -> Any:
        config = Config(
            connect_timeout=ATTEMPT,
            read_timeout=ATTEMPT,
            retries={"total_max_attempts": 1, "mode": "standard"},  # ours keep time
            tcp_keepalive=True,
            user_agent_extra="service_monitor",
        )
        with _reading_settings():
            # If they are wrong, that is no wrong endpoint.
            self._credentials = self._session.get_credentials()
            try:
                client = self._session.client(
                    "dynamodb", endpoint_url=self._place.endpoint, config=config
                )
                _endpoint_of(client)
            except ValueError as error:  # an endpoint from the environment
                raise ConfigError(f"AWS settings: {in_boto3(error)}") from None

        def choose(context: dict[str, Any], **_: Any) -> str:
            context["store_clock"] = self.clock
            return _SIGNER

        client.meta.events.register("choose-signer.dynamodb", choose)
        client.meta.events.register("before-parse.dynamodb", self._recognise)
        return client

    def _recognise(self, response_dict: dict[str, Any], **_: Any) -> None:
        """Refuse a success that is not DynamoDB's: botocore reads any as "nothing"."""
        kind = response_dict["headers"].get("content-type", "")
        if response_dict["status_code"] < 300 and not kind.startswith(_ANSWERS):
            raise self.stranger()

    def forget(self) -> None:
        """Read the credentials anew for the next request."""
        session = self._new_session()
        # A lock of its own: under the old one credentials may be waited for in vain.
        self._client, self._session, self._lock = None, session, threading.Lock()

    def silence(self, what: str) -> StoreUnavailable:
        """Return the error that says why there was no answer."""
        return StoreUnavailable(f"{self._server}: {what}")

    def stranger(self) -> StoreRefused:
        """Return the error that says that what answers is something else."""
        text = "that is not DynamoDB, by its answer: is the endpoint right?"
        return StoreRefused(f"{self._server}: {text}")

    @property
    def _server(self) -> str:
        return self._place.endpoint or f"DynamoDB, {self.where}"


def _endpoint_of(client: Any) -> Endpoint:
    """Return where the requests of a client go. Raises ValueError for no such port."""
    parts = urlsplit(client.meta.endpoint_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Endpoint(parts.scheme, in_url(parts.hostname, None), port)

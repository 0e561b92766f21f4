"""Calls to DynamoDB through boto3, with our deadline, our retries and no wall clock.

Requests are signed by the time that the service's answers are dated with: a host whose
clock is an hour off is let in on its second try.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from service_monitor import DISTRIBUTION
from service_monitor.errors import (
    ConfigError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.net.addresses import in_url
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.urls import mask_url
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.dynamodb import credentials as aws_credentials
from service_monitor.stores.dynamodb.clock import StoreClock
from service_monitor.stores.dynamodb.refusals import (
    in_boto3,
    reasons,
    refusal,
    unusable,
)
from service_monitor.stores.etcd.endpoints import Endpoint
from service_monitor.text import quoted
from service_monitor.timing import now

try:
    import boto3
    from botocore import auth
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
    )
    from botocore.parsers import ResponseParserError

    from service_monitor.stores.dynamodb.connect import connect_side_by_side
except ImportError as error:
    raise ConfigError(
        f"dynamodb:// needs boto3 ({error}): pip install '{DISTRIBUTION}[dynamodb]'"
    ) from error

ATTEMPT = 2.0
"""Seconds for one request: a silent connection must not use up the whole call."""
_TRIES = 3
"""Requests without any answer before the store counts as unreachable."""
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds before a retry: a random share of the first, doubling up to the second."""

_SKEWED = re.compile("ignature expired|ignature not yet current|RequestExpired")
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNREADABLE = ValueError, KeyError, TypeError, AttributeError
"""What boto3 raises, besides its own errors, where credentials are missing or wrong."""
_URL = re.compile(
    r"dynamodb://(?P<table>[A-Za-z0-9_.-]{3,255})"
    r"(?P<prefix>(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*)/?(?:\?(?P<options>[^@#]*))?",
    re.IGNORECASE,
)
_SIGNER = "service-monitor"
_ANSWERS = ("application/x-amz-json", "application/cbor")
"""What DynamoDB's answers are: the first today, the second if botocore asks for it."""


@dataclass(frozen=True)
class Place:
    """Which table, and where; what is None comes from boto3's own settings."""

    table: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None


class Unmet(Exception):
    """The condition of a write did not hold; `codes` says it for each of its items."""

    def __init__(self, codes: list[str]) -> None:
        super().__init__("a condition did not hold")
        self.codes = codes


def parse_place(url: str) -> Place:
    """Read `dynamodb://TABLE[/PREFIX][?region=..&endpoint=..&profile=..]`.

    Raises `ConfigError`.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"store {quoted(mask_url(url))} {what}")

    match = _URL.fullmatch(url)
    if match is None or not (url.isascii() and url.isprintable()) or " " in url:
        raise wrong(
            "does not read as dynamodb://TABLE[/PREFIX][?region=R&endpoint=URL&"
            "profile=P]; a table has 3 to 255 letters, digits, '.', '_' and '-'"
        )
    options: dict[str, str] = {}
    for name, value in parse_qsl(match["options"] or "", keep_blank_values=True):
        if name not in ("region", "endpoint", "profile"):
            raise wrong(
                f"has an unknown option {quoted(name)}: use region, endpoint, profile"
            )
        if not value or name in options:
            raise wrong(f"needs {name} once, with a value")
        options[name] = value
    if not re.fullmatch("[a-z0-9-]{1,63}", options.get("region", "-")):
        raise wrong(f"names no region: {quoted(options['region'])}")
    if "@" in options.get("endpoint", ""):  # in the URL that is %40: not masked
        raise ConfigError(
            f"store dynamodb://{match['table']} has a user or password in its "
            "endpoint: DynamoDB takes none, leave them out"
        )
    if "endpoint" in options and not _is_endpoint(options["endpoint"]):
        raise wrong("needs an endpoint like https://HOST[:PORT]")
    return Place(match["table"], match["prefix"], **options)


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not (parts.query or parts.fragment)
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and bare
    )


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

    def __init__(self, place: Place, bounds: Bounds) -> None:
        aws_credentials.check_environment(os.environ, place.profile)
        self.clock = StoreClock()
        self._place = place
        self._bounds = bounds
        self._lock = threading.Lock()
        self._client: Any = None
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

    def endpoint(self) -> Endpoint:
        """Return where the requests go; looks for credentials, sends nothing there.

        Raises `StoreError`, and `Stopped` at once when the stop is requested.
        """
        try:
            client = bounded(self._connect, CALL_TIMEOUT, self._bounds, waits=True)
        except (BotoCoreError, *_UNREADABLE) as error:
            raise unusable(self.where, error) from None
        except OSError as error:
            raise self.silence(describe(error)) from error
        parts = urlsplit(client.meta.endpoint_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return Endpoint(parts.scheme, in_url(parts.hostname, None), port)

    def begin(self, seconds: float = CALL_TIMEOUT) -> Call:
        """Start a primitive: all that it asks has so many seconds, 5 at the most."""
        return Call(self, self._bounds, min(seconds, CALL_TIMEOUT))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def send(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        client = self._connect()
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
            raise ConfigError(f"AWS settings: {in_boto3(error)}") from None

    def _new_client(self) -> Any:
        config = Config(
            connect_timeout=ATTEMPT,
            read_timeout=ATTEMPT,
            retries={"total_max_attempts": 1, "mode": "standard"},  # ours keep time
            tcp_keepalive=True,
            user_agent_extra="service_monitor",
        )
        self._session.get_credentials()  # what is wrong with them is no wrong endpoint
        try:
            client = self._session.client(
                "dynamodb", endpoint_url=self._place.endpoint, config=config
            )
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
        return StoreUnavailable(f"{self._server}: {what}")

    def stranger(self) -> StoreRefused:
        """Say that what answers is something else."""
        text = "that is not DynamoDB, by its answer: is the endpoint right?"
        return StoreRefused(f"{self._server}: {text}")

    @property
    def _server(self) -> str:
        return self._place.endpoint or f"DynamoDB, {self.where}"


class Call:
    """One primitive: `call("get_item", Key=...)`, until the deadline of them all.

    `sent` counts the requests.
    """

    def __init__(self, aws: Aws, bounds: Bounds, seconds: float) -> None:
        self._aws = aws
        self._bounds = bounds
        self._deadline = now() + min(seconds, bounds.time_left())
        self._cleaning_up = bounds.stop.requested
        self._failures = 0
        self.sent = 0

    def __call__(
        self, operation: str, missing: str = "", **parameters: Any
    ) -> dict[str, Any]:
        """Ask until there is an answer; what only means "not now" is asked again.

        An error of the code `missing` is an empty answer. Raises `Unmet`, `StoreError`
        and `Stopped`; and `ConfigError` if the AWS settings are wrong from the start.
        """
        try:
            return self._ask(operation, missing, parameters)
        except ConfigError as error:  # later on a file may just be being written
            if not self._aws.clock.known:
                raise
            raise StoreRefused(f"{self._aws.where}: {error}") from error

    def _ask(
        self, operation: str, missing: str, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        aws, unanswered, renewed, skewed = self._aws, 0, False, False
        trouble: StoreError | None = None
        while True:
            self.sent += 1
            try:
                return bounded(
                    lambda: aws.send(operation, parameters),
                    self._deadline - now(),
                    self._bounds,
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == missing:
                    return {}
                if "ConditionalCheckFailed" in (codes := reasons(error)):
                    raise Unmet(codes) from None
                trouble = refusal(aws.where, error)
                if _SKEWED.search(str(error)) and not skewed:
                    skewed = True  # it is signed by the store's own time from now on
                elif code in _EXPIRED and not renewed:
                    renewed = True
                    aws.forget()  # new ones may have been laid down for us
                elif not isinstance(trouble, StoreUnavailable):
                    raise trouble from error
            except (HTTPClientError, ConnectionError, ResponseParserError) as error:
                cause = getattr(error, "kwargs", {}).get("error") or error
                if isinstance(cause, ValueError) and not isinstance(cause, OSError):
                    raise unusable(aws.where, cause) from None  # what cannot be sent
                trouble, unanswered = aws.silence(describe(cause)), unanswered + 1
                if unanswered == _TRIES:
                    raise trouble from error
            except (BotoCoreError, *_UNREADABLE) as error:
                aws.forget()
                raise unusable(aws.where, error) from None
            except OSError as error:  # of `bounded`: too late
                raise (trouble or aws.silence(describe(error))) from error
            self.again(trouble)

    def again(self, trouble: StoreError | str) -> None:
        """Pause for a random time, so that those who collided part; or give up."""
        longest = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(self._failures, 10))
        pause = random.random() * longest
        self._failures += 1
        if now() + pause >= self._deadline:
            raise self._aws.silence(trouble) if isinstance(trouble, str) else trouble
        if self._cleaning_up:
            time.sleep(pause)
        else:
            self._bounds.stop.wait(pause)
            self._bounds.stop.check()

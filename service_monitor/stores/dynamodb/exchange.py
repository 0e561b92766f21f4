"""The requests of one primitive to DynamoDB: repeated until one is answered."""

from __future__ import annotations

import random
import re
import time
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.parsers import ResponseParserError

from service_monitor.errors import (
    ConfigError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.net.calls import Bounds, bounded
from service_monitor.stores.dynamodb.aws import Aws, Unreadable
from service_monitor.stores.dynamodb.refusals import reasons, refusal, unusable

_TRIES = 3
"""Requests without any answer before the store counts as unreachable."""
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds before a retry: a random share of the first, doubling up to the second."""
_SKEWED = re.compile("ignature expired|ignature not yet current|RequestExpired")
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}


class Unmet(Exception):
    """The condition of a write did not hold; `codes` says it for each of its items."""

    def __init__(self, codes: list[str]) -> None:
        super().__init__("a condition did not hold")
        self.codes = codes


class Exchange:
    """One primitive: `exchange("get_item", Key=...)`, until `bounds` end it.

    `sent` counts the requests.
    """

    def __init__(self, aws: Aws, bounds: Bounds) -> None:
        self._aws = aws
        self._bounds = bounds
        self._cleaning_up = bounds.stop.requested
        self._failures = 0
        self.sent = 0

    def __call__(
        self, operation: str, missing: str = "", **parameters: Any
    ) -> dict[str, Any]:
        """Ask until there is an answer; what only means "not now" is asked again.

        An error of the code `missing` is an empty answer. Blocks up to
        `bounds.time_left()` seconds. Raises `Unmet`, `StoreError`, `LocalLack` and
        `Stopped`; and `ConfigError` if the AWS settings are wrong from the start.
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
                    self._bounds.time_left(),
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
            except ParamValidationError:  # a request that we built wrongly
                raise
            except (BotoCoreError, Unreadable) as error:
                aws.forget()
                cause = error.cause if isinstance(error, Unreadable) else error
                raise unusable(aws.where, cause) from None
            except OSError as error:  # of `bounded`: too late
                raise (trouble or aws.silence(describe(error))) from error
            self.pause(trouble)

    def pause(self, trouble: StoreError | str) -> None:
        """Pause for a random time, so that those who collided part.

        Raises the trouble where no time is left to try again, and `Stopped`.
        """
        longest = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(self._failures, 10))
        seconds = random.random() * longest
        self._failures += 1
        if seconds >= self._bounds.time_left():
            raise self._aws.silence(trouble) if isinstance(trouble, str) else trouble
        if self._cleaning_up:
            time.sleep(seconds)
        else:
            self._bounds.stop.wait(seconds)
            self._bounds.stop.check()

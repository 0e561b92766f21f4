"""The errors of an etcd, by what may mend them: another address, a login, waiting."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.stores.failover import RefusedHere


class DeadToken(enum.Enum):
    """Whether a failure may come from a token that etcd no longer knows."""

    NO = "no"
    PERHAPS = "some gateways, proxies and watches fail so"
    SURELY = "etcd says it"


class EtcdRefusal(StoreRefused):
    """An error that etcd itself gave, which no waiting ends; `code` is gRPC's."""

    def __init__(
        self, message: str, code: int, dead_token: DeadToken = DeadToken.NO
    ) -> None:
        super().__init__(message)
        self.code = code
        self.dead_token = dead_token


class LeaseGone(EtcdRefusal):
    """The etcd lease that a request was about does not exist, or no more."""


class WrongAddress(RefusedHere):
    """This address will not serve us, whatever we ask."""

    dead_token = DeadToken.NO


class NotLetIn(RefusedHere):
    """A proxy at this address lets nothing of ours through, if it is no dead token."""

    dead_token = DeadToken.PERHAPS


class Outage(StoreUnavailable):
    """It cannot be served now; later perhaps."""

    def __init__(self, message: str, dead_token: DeadToken = DeadToken.NO) -> None:
        super().__init__(message)
        self.dead_token = dead_token


def dead_token_in(error: BaseException) -> DeadToken:
    """Tell whether an error may come from a dead token."""
    found: DeadToken = getattr(error, "dead_token", DeadToken.NO)
    return found


class CannotSend(Exception):
    """A library refuses to send a request; its own error, the cause, may quote it."""


@contextmanager
def library_call() -> Iterator[None]:
    """Tell what a library refuses to send from a mistake of ours in reading answers.

    Raises `CannotSend` for a ValueError, which libraries let through.
    """
    try:
        yield
    except OSError:  # those of `requests`, too
        raise
    except ValueError as error:
        raise CannotSend("a request that cannot be sent") from error

"""Send one request to one gateway of etcd, and have its answer judged and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from service_monitor.errors import StoreError, describe
from service_monitor.net.calls import Bounds, bounded
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.answers import (
    ErrorMessage,
    RequestInfo,
    failure_of_watch,
    foreign,
    judge,
    refusal,
)
from service_monitor.stores.etcd.api import V3
from service_monitor.stores.etcd.failures import (
    CannotSend,
    DeadToken,
    Outage,
    library_call,
)
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.port import is_of_the_other_kind
from service_monitor.stores.etcd.reading import NotEtcd, Part, parse
from service_monitor.stores.etcd.silence import silence
from service_monitor.timing import now

R = TypeVar("R")

LOGIN = "/v3/auth/authenticate"
WATCH = "/v3/watch"
_DOING = {
    LOGIN: "log in",
    WATCH: "watch",
    "/v3/kv/range": "read",
    "/v3/kv/txn": "write",
    "/v3/lease/grant": "grant a lease",
    "/v3/lease/keepalive": "renew a lease",
    "/v3/lease/timetolive": "look at a lease",
    "/v3/lease/revoke": "give a lease back",
}
_LEAST = 0.05
"""Seconds for a request whose share was used up by one before it."""


class Request(NamedTuple):
    """What to ask one etcd, as whom, and until when (seconds of `timing.now`)."""

    endpoint: Endpoint
    path: str
    body: dict[str, Any]
    token: str
    deadline: float

    @property
    def seconds(self) -> float:
        """Return the seconds that it may still take, a few hundredths at the least."""
        return max(_LEAST, self.deadline - now())


class Sender:
    """The connections to the gateways of one cluster.

    Both of its calls block up to the request's deadline, and raise `StoreError`,
    `LocalLack` and `Stopped`.
    """

    def __init__(self, access: Access, bounds: Bounds) -> None:
        import requests  # the slow import, only for who uses it

        from service_monitor.net.http import new_session, text_of

        self._access = access
        self._bounds = bounds
        self._session = new_session(ca=access.ca, cert=access.cert)
        self._text = text_of
        self._failures = requests.RequestException, OSError, CannotSend
        self._known: set[Endpoint] = set()  # where etcd has answered

    def post(
        self, request: Request, read: Callable[[Part], R], *, waits: bool = False
    ) -> R:
        """Ask, and return what `read` finds in the answer.

        With `waits` a stop request ends it at once: nothing is written.
        """

        def send() -> tuple[int, str, str]:
            with self._open(request) as answer:
                return answer.status_code, self._text(answer), _location(answer)

        try:
            status, text, location = bounded(
                send, request.seconds, self._bounds, waits=waits
            )
        except self._failures as error:
            raise self._silence(request, error) from error
        if status != 200:
            raise judge(self._info(request), status, text, location)
        try:
            answer = parse(text)
            if "error" in answer:  # of a stream, whose status was sent before
                raise judge(self._info(request), 500, text)
            if "header" not in answer and "result" not in answer:
                raise NotEtcd("neither header nor result")
            found = read(answer)
        except NotEtcd as error:
            raise self._strange(request, text) from error
        self._known.add(request.endpoint)
        return found

    def follow(self, request: Request) -> None:
        """Read a watch up to the first message that is worth a look at the list.

        Returns at the deadline, too; a stop request ends it at once.
        """
        try:
            bounded(
                lambda: self._follow(request), request.seconds, self._bounds, waits=True
            )
        except TimeoutError:
            return
        except self._failures as error:
            if describe(error) != "no answer in time":
                raise self._silence(request, error) from error

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    @contextmanager
    def _open(self, request: Request) -> Iterator[Any]:
        seconds = request.seconds
        with library_call():
            answer = self._session.post(
                f"{request.endpoint.url}{request.path}",
                json=request.body,
                headers={"Authorization": request.token} if request.token else {},
                timeout=(min(seconds, CALL_TIMEOUT), seconds),  # to connect, to read
                allow_redirects=False,
                stream=True,
            )
        with answer:
            yield answer

    def _follow(self, request: Request) -> None:
        made = False
        with self._open(request) as stream:
            if (status := stream.status_code) != 200:
                text, location = self._text(stream), _location(stream)
                raise judge(self._info(request), status, text, location)
            for line in stream.iter_lines(chunk_size=None):
                try:
                    changed, failure = _read_watch(line)
                except NotEtcd as error:
                    shown = str(line, errors="replace")
                    raise self._strange(request, shown) from error
                if failure:
                    raise refusal(self._info(request), failure)
                if changed:
                    return
                made = True
        # What cuts it later is no dead token: etcd checks that when the watch is made.
        raise Outage("ended the watch", DeadToken.NO if made else DeadToken.PERHAPS)

    def _strange(self, request: Request, text: str) -> StoreError:
        secrets = self._secrets(request)
        return foreign(V3, 200, text, _DOING[request.path], secrets=secrets)

    def _info(self, request: Request) -> RequestInfo:
        return RequestInfo(
            request.endpoint,
            _DOING[request.path],
            self._access.user,
            f"{self._access.prefix}/",
            self._secrets(request),
        )

    def _secrets(self, request: Request) -> tuple[str, ...]:
        """Return what an answer may quote of our request, and we must not show."""
        return self._access.password or "", request.token

    def _silence(self, request: Request, error: BaseException) -> StoreError:
        endpoint = request.endpoint
        ask = partial(is_of_the_other_kind, endpoint, request.deadline, self._bounds)
        known = endpoint in self._known
        return silence(endpoint, error, V3, known=known, other_kind=ask)


def _location(answer: Any) -> str:
    return str(answer.headers.get("Location", "")) if answer.is_redirect else ""


def _read_watch(line: bytes) -> tuple[bool, ErrorMessage | None]:
    """Tell whether a watch's message says to list again, or how it failed."""
    message = parse(line)
    failure = failure_of_watch(message)
    result = message.part("result")
    return bool(result.parts("events")) or result.flag("canceled"), failure

"""Requests to the JSON gateway of an etcd: endpoints, deadlines, and a user's login."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable, describe
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.credentials import is_plain
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.stores.etcd.answers import (
    V3,
    About,
    Doubt,
    Refusal,
    Said,
    Trouble,
    foreign,
    judge,
    of_watch,
    refusal,
)
from service_monitor.stores.etcd.endpoints import (
    Access,
    Endpoint,
    Failover,
    RefusedHere,
)
from service_monitor.stores.etcd.port import asks_for_the_other_kind
from service_monitor.stores.etcd.silence import silence
from service_monitor.stores.etcd.token import Token
from service_monitor.text import hide
from service_monitor.timing import now

R = TypeVar("R")

_LOGIN = "/v3/auth/authenticate"
_WATCH = "/v3/watch"
_DOING = {
    _LOGIN: "log in",
    _WATCH: "watch",
    "/v3/kv/range": "read",
    "/v3/kv/txn": "write",
    "/v3/lease/grant": "grant a lease",
    "/v3/lease/keepalive": "renew a lease",
    "/v3/lease/timetolive": "look at a lease",
    "/v3/lease/revoke": "give a lease back",
}
_NONSENSE = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""What reading an answer raises that is not of etcd's v3 API."""
_LEAST = 0.05
"""Seconds for a request whose share was used up by one before it."""


class Gateway:
    """The gateways of one cluster, asked one after the other as `Failover` has it."""

    def __init__(
        self, endpoints: list[Endpoint], access: Access, bounds: Bounds
    ) -> None:
        import requests  # the slow import, only for who uses it

        from service_monitor.net.http import new_session, text_of

        self.failover = Failover(endpoints)
        self._access = access
        self._bounds = bounds
        self._session = new_session(ca=access.ca, cert=access.cert)
        self._text = text_of
        self._request_error = requests.RequestException
        self._token = Token()
        self._known: set[Endpoint] = set()  # where etcd has answered

    def deadline(self) -> float:
        """Return when a primitive that begins now has to end, with all its calls."""
        return now() + min(CALL_TIMEOUT, self._bounds.time_left())

    def post(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], R],
        until: float | None = None,
    ) -> R:
        """Ask one endpoint after the other; return what `read` finds in the answer.

        `until` is a `deadline` taken before. Raises `Refusal` and other `StoreError`s.
        """
        until = self.deadline() if until is None else until

        def ask(endpoint: Endpoint, seconds: float) -> R:
            deadline = now() + seconds
            return self._as_user(
                lambda token: self._send(endpoint, path, body, read, token, deadline),
                lambda: self._log_in(endpoint, deadline),
            )

        return self.failover.call(ask, until - now())

    def watch(self, request: dict[str, Any], timeout: float) -> None:
        """Block until the watch says that something may have changed, or the timeout.

        Raises `StoreError`, and `Stopped` at once.
        """
        endpoint, deadline = self.failover.current, now() + timeout

        def watch(token: str) -> None:
            seconds = max(_LEAST, deadline - now())

            def follow() -> None:
                self._follow(endpoint, request, token, seconds)

            try:
                bounded(follow, seconds, self._bounds, waits=True)
            except TimeoutError:
                return
            except (self._request_error, OSError, ValueError) as error:
                if describe(error) != "no answer in time":
                    raise self._silence(endpoint, error, deadline) from error

        try:
            self._as_user(watch, lambda: self._log_in(endpoint, deadline, True))
        except RefusedHere as error:
            raise StoreRefused(f"{endpoint}: {error}") from error
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{endpoint}: {error}") from error

    def close(self) -> None:
        self._session.close()

    def _as_user(self, send: Callable[[str], R], log_in: Callable[[], str]) -> R:
        return self._token.use(send, log_in) if self._access.user else send("")

    def _log_in(self, endpoint: Endpoint, deadline: float, waits: bool = False) -> str:
        """Return a new token, "" if etcd wants none."""
        body = {"name": self._access.user, "password": self._access.password}

        try:
            token = self._send(endpoint, _LOGIN, body, _token, "", deadline, waits)
        except Refusal as error:
            if "not enabled" in str(error):
                return ""  # an etcd without users lets everybody in
            if error.doubt is Doubt.CERTAIN:  # its users are changing just now
                raise Trouble(str(error)) from error
            raise StoreRefused(f"{error} (user {self._access.user!r})") from error
        except StoreUnavailable as error:
            raise Trouble(f"cannot log in: {error}") from error
        hide(token)
        if not is_plain(token):  # a header that no library would send
            raise Trouble("cannot log in: what it gave is no token of etcd's")
        return token

    def _send(
        self,
        endpoint: Endpoint,
        path: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], R],
        token: str,
        deadline: float,
        waits: bool = False,
    ) -> R:
        seconds = max(_LEAST, deadline - now())

        def post() -> tuple[int, str, str]:
            with self._session.post(
                f"{endpoint.url}{path}",
                json=body,
                headers=_headers(token),
                timeout=seconds,
                allow_redirects=False,
                stream=True,
            ) as answer:
                return answer.status_code, self._text(answer), _location(answer)

        try:
            status, text, location = bounded(post, seconds, self._bounds, waits=waits)
        # ValueError: of what cannot be sent, which `requests` does not wrap.
        except (self._request_error, OSError, ValueError) as error:
            raise self._silence(endpoint, error, deadline) from error
        if status != 200:
            raise judge(self._about(endpoint, path), status, text, location)
        try:
            answer = json.loads(text)
            if "error" in answer:  # of a stream, whose status was sent before
                raise judge(self._about(endpoint, path), 500, text)
            if not {"header", "result"} & set(answer):
                raise ValueError(answer)
            found = read(answer)
        except _NONSENSE as error:
            raise self._strange(path, text) from error
        self._known.add(endpoint)
        return found

    def _follow(
        self, endpoint: Endpoint, request: dict[str, Any], token: str, seconds: float
    ) -> None:
        """Read a watch up to the first message that is worth a look at the list."""
        made = False
        with self._session.post(
            f"{endpoint.url}{_WATCH}",
            json={"create_request": request},
            headers=_headers(token),
            timeout=(min(seconds, CALL_TIMEOUT), seconds),
            allow_redirects=False,
            stream=True,
        ) as stream:
            if (status := stream.status_code) != 200:
                text, location = self._text(stream), _location(stream)
                raise judge(self._about(endpoint, _WATCH), status, text, location)
            for line in stream.iter_lines(chunk_size=None):
                try:
                    changed, failed = _look(line)
                except _NONSENSE as error:
                    raise self._strange(_WATCH, str(line, errors="replace")) from error
                if failed:
                    raise refusal(self._about(endpoint, _WATCH), failed)
                if changed:
                    return
                made = True
        # What cuts it later is no dead token: etcd checks that when the watch is made.
        raise Trouble("ended the watch", Doubt.NONE if made else Doubt.PERHAPS)

    def _strange(self, path: str, text: str) -> StoreError:
        return foreign(V3, 200, text, _DOING[path], secrets=self._secrets())

    def _about(self, endpoint: Endpoint, path: str) -> About:
        user, prefix = self._access.user, f"{self._access.prefix}/"
        return About(endpoint, _DOING[path], user, prefix, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        """Return what an answer may quote of our requests, and we must not show."""
        return self._access.password or "", self._token.value or ""

    def _silence(
        self, endpoint: Endpoint, error: BaseException, deadline: float
    ) -> StoreError:
        ask = asks_for_the_other_kind(endpoint, deadline, self._bounds)
        known = endpoint in self._known
        return silence(endpoint, error, V3, known=known, other_kind=ask)


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": token} if token else {}


def _token(answer: dict[str, Any]) -> str:
    return str(answer["token"])


def _location(answer: Any) -> str:
    return str(answer.headers.get("Location", "")) if answer.is_redirect else ""


def _look(line: bytes) -> tuple[bool, Said | None]:
    """Tell whether a watch's message says to list again, or how it failed."""
    message = json.loads(line)
    failed = of_watch(message)
    result = message.get("result", {})
    return bool(result.get("events") or result.get("canceled")), failed

"""Ask the gateways of one etcd in turn, logged in as a user where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.net.credentials import is_plain
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.failures import DeadToken, EtcdRefusal, Outage
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.reading import Part
from service_monitor.stores.etcd.sending import LOGIN, WATCH, Request, Sender
from service_monitor.stores.etcd.token import Token
from service_monitor.stores.failover import Failover, RefusedHere
from service_monitor.text import hide
from service_monitor.timing import now

R = TypeVar("R")


class Gateway:
    """The gateways of one cluster, asked one after the other as `Failover` has it."""

    def __init__(
        self, endpoints: Sequence[Endpoint], access: Access, bounds: Bounds
    ) -> None:
        self.failover = Failover(endpoints)
        self._access = access
        self._bounds = bounds
        self._sender = Sender(access, bounds)
        self._token = Token()

    def post(self, path: str, body: dict[str, Any], read: Callable[[Part], R]) -> R:
        """Ask one endpoint after the other; return what `read` finds in the answer.

        Blocks up to `bounds.time_left()` seconds. Raises `EtcdRefusal` and other
        `StoreError`s, `LocalLack` and `Stopped`.
        """

        def ask(endpoint: Endpoint, seconds: float) -> R:
            deadline = now() + seconds

            def send(token: str) -> R:
                request = Request(endpoint, path, body, token, deadline)
                return self._sender.post(request, read)

            return self._as_user(send, lambda: self._log_in(endpoint, deadline))

        return self.failover.call(ask, self._bounds.time_left())

    def watch(self, created: dict[str, Any], timeout: float) -> None:
        """Block until the watch says that something may have changed, or the timeout.

        `created` is etcd's create_request. Raises `StoreError`, `LocalLack`, and
        `Stopped` at once.
        """
        endpoint, deadline = self.failover.current, now() + timeout
        body = {"create_request": created}

        def follow(token: str) -> None:
            self._sender.follow(Request(endpoint, WATCH, body, token, deadline))

        try:
            self._as_user(follow, lambda: self._log_in(endpoint, deadline, waits=True))
        except RefusedHere as error:
            raise StoreRefused(f"{endpoint}: {error}") from error
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{endpoint}: {error}") from error

    def close(self) -> None:
        """End the connections."""
        self._sender.close()

    def _as_user(self, send: Callable[[str], R], log_in: Callable[[], str]) -> R:
        return self._token.use(send, log_in) if self._access.user else send("")

    def _log_in(
        self, endpoint: Endpoint, deadline: float, *, waits: bool = False
    ) -> str:
        """Return a new token, "" if etcd wants none."""
        body = {"name": self._access.user, "password": self._access.password}
        request = Request(endpoint, LOGIN, body, "", deadline)
        try:
            token = self._sender.post(request, _token, waits=waits)
        except EtcdRefusal as error:
            if "not enabled" in str(error):
                return ""  # an etcd without users lets everybody in
            if error.dead_token is DeadToken.SURELY:  # its users are changing just now
                raise Outage(str(error)) from error
            raise StoreRefused(f"{error} (user {self._access.user!r})") from error
        except StoreUnavailable as error:
            raise Outage(f"cannot log in: {error}") from error
        hide(token)
        if not is_plain(token):  # a header that no library would send
            raise Outage("cannot log in: what it gave is no token of etcd's")
        return token


def _token(answer: Part) -> str:
    return answer.text("token")

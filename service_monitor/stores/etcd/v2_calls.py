"""Calls by that client: one for each endpoint, failing over, one kind of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import etcd

from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import connecting_within
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.port import is_of_the_other_kind
from service_monitor.stores.etcd.v2_client import ERRORS, new_client, translate
from service_monitor.stores.failover import Failover, RefusedHere
from service_monitor.timing import now

T = TypeVar("T")

_ANSWERS = etcd.EtcdKeyNotFound, etcd.EtcdAlreadyExist, etcd.EtcdCompareFailed
"""What etcd says of a key, which is no failure: passed on as it is."""


class Calls:
    """The clients of one cluster; `failover` chooses among them."""

    def __init__(
        self, endpoints: Sequence[Endpoint], access: Access, bounds: Bounds
    ) -> None:
        self.failover = Failover(endpoints)
        self._access = access
        self._bounds = bounds
        self._clients: dict[Endpoint, Any] = {}
        self._known: set[Endpoint] = set()  # where etcd has answered

    def ask(self, doing: str, function: Callable[[Any], T]) -> T:
        """Call with one client after the other; return what the first one gives.

        `doing` is such as "read", for messages. Blocks up to `bounds.time_left()`
        seconds. Raises what etcd says of the key (not found, exists, differs), and
        `StoreError`, `LocalLack` and `Stopped`.
        """

        def ask(endpoint: Endpoint, seconds: float) -> T:
            deadline = now() + seconds

            def send() -> T:
                with connecting_within(seconds):  # python-etcd has one for all calls
                    return function(self._client(endpoint))

            try:
                found = bounded(send, seconds, self._bounds)
            except _ANSWERS:
                self._known.add(endpoint)
                raise
            except ERRORS as error:
                raise self._translate(error, endpoint, doing, deadline) from error
            self._known.add(endpoint)
            return found

        return self.failover.call(ask, self._bounds.time_left())

    def watch(self, function: Callable[[Any], None], timeout: float) -> None:
        """Call with the client that answered last; return after `timeout` seconds.

        Raises `EtcdEventIndexCleared` where the history does not go back so far;
        `StoreError`, `LocalLack`, and `Stopped` at once.
        """
        endpoint = self.failover.current

        def follow() -> None:
            function(self._client(endpoint))

        try:
            bounded(follow, timeout, self._bounds, waits=True)
        except (TimeoutError, etcd.EtcdWatchTimedOut):
            return
        except etcd.EtcdEventIndexCleared:
            raise
        except ERRORS as error:
            failure = self._translate(error, endpoint, "watch", now())
            if isinstance(failure, RefusedHere):  # which names no endpoint
                failure = StoreRefused(f"{endpoint}: {failure}")
            raise failure from error

    def close(self) -> None:
        """End the connections."""
        for client in self._clients.values():
            client.http.clear()

    def _client(self, endpoint: Endpoint) -> Any:
        client = self._clients.get(endpoint)
        if client is None:
            client = self._clients[endpoint] = new_client(endpoint, self._access)
        return client

    def _translate(
        self, error: BaseException, endpoint: Endpoint, doing: str, deadline: float
    ) -> StoreError:
        if isinstance(error, etcd.EtcdClusterIdChanged):
            if client := self._clients.pop(endpoint, None):
                client.http.clear()
            return StoreUnavailable("this is another cluster than before")
        return translate(
            error,
            endpoint,
            self._access,
            doing,
            known=endpoint in self._known,
            other_kind=partial(is_of_the_other_kind, endpoint, deadline, self._bounds),
        )

"""The etcd leases that records hang on: granted, renewed, revoked if unused.

We choose their ids: so a grant whose reply was lost can be repeated, and a write still
on its way dies with the revoked lease.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from contextlib import suppress

from service_monitor.errors import (
    LocalLack,
    Stopped,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.records import Record
from service_monitor.stores.etcd.failures import EtcdRefusal, LeaseGone
from service_monitor.stores.etcd.gateway import Gateway
from service_monitor.stores.etcd.reading import NotEtcd, Part


class Leases:
    """The leases granted to one store. Its calls block and raise as `Gateway`'s."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unused: set[int] = set()  # granted by us, and carry no record
        self._unanswered: dict[float, int] = {}  # by ttl: grants without a reply

    def write(self, ttl: float, put: Callable[[int], Record]) -> Record:
        """Write a record on a new lease of `ttl` seconds.

        A pause of ours or of etcd's between the two can outlast the lease. Then nothing
        was written, and it is done once more on a new one.
        """
        ended: LeaseGone | None = None
        for _ in range(2):
            lease = self._grant(ttl)
            try:
                record = put(lease)
            except LeaseGone as error:
                ended = error
                self._unused.discard(lease)
            else:
                self._unused.discard(lease)
                return record
        raise StoreUnavailable(f"{ended}: it ended before it was used") from ended

    def carries_a_record(self, lease: int) -> None:
        """Note that a record was seen on it: the reply to that write may be lost."""
        self._unused.discard(lease)

    def renew(self, lease: int) -> bool:
        """Let it live its ttl from now; False if it has ended."""

        def lives(answer: Part) -> bool:
            if "result" not in answer:
                raise NotEtcd("no result")
            return answer.part("result").number("TTL", 0) > 0

        with suppress(LeaseGone):
            return self._gateway.post("/v3/lease/keepalive", {"ID": str(lease)}, lives)
        return False

    def seconds_left(self, lease: int) -> float:
        """Return the seconds until it ends, 0 when it has."""

        def read(answer: Part) -> int:
            # A zero is left out: it is in its last second.
            return answer.number("TTL", 0 if "grantedTTL" in answer else None)

        body = {"ID": str(lease)}
        with suppress(LeaseGone):
            left = self._gateway.post("/v3/lease/timetolive", body, read)
            return max(0.0, float(left))
        return 0.0

    def revoke_unused(self) -> None:
        """Give back what carries no record; what cannot be reached lapses."""
        with suppress(StoreUnavailable, LocalLack, Stopped):
            for lease in self._unused:
                with suppress(StoreRefused):  # that one never came to be
                    body = {"ID": str(lease)}
                    self._gateway.post("/v3/lease/revoke", body, _anything)
        self._unused.clear()

    def _grant(self, ttl: float) -> int:
        for _ in range(2):
            lease = self._unanswered.pop(ttl, None) or secrets.randbits(62) + 1
            self._unused.add(lease)
            body = {"ID": str(lease), "TTL": math.ceil(ttl)}
            try:
                self._gateway.post("/v3/lease/grant", body, _anything)
                return lease
            except StoreUnavailable:
                self._unanswered[ttl] = lease
                raise
            except EtcdRefusal as error:
                if "already exists" not in str(error):
                    self._unused.discard(lease)
                    raise
            # It is our own, by a lost reply; it may be old by now.
            if self.renew(lease):
                return lease
            self._unused.discard(lease)
        raise StoreUnavailable("lease not found: it ended before it was used")


def _anything(answer: Part) -> None:
    """Want nothing of an answer but that it came."""

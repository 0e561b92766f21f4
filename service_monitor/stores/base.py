"""The store primitives: the recipes are written once over this protocol."""

from __future__ import annotations

from typing import Protocol

from service_monitor.records import Record, Snapshot

CALL_TIMEOUT = 5.0
"""Seconds for one call, failing over between all endpoints included."""


class Store(Protocol):
    """Six primitives; every call is bounded and may raise a `StoreError`.

    Keys are relative, without a leading slash. Where a `prefix` ends in a slash it
    means everything below it, else that one key.
    """

    def create(self, key: str, value: str, ttl: float) -> Record:
        """Write `key` if there is no live record, to live `ttl` seconds.

        Raises `KeyExists`. Repeating a create whose reply was lost raises it too, with
        one's own record in it: compare the nonce.
        """
        ...

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        """Replace the value if the record is still as read; `created` stays.

        It then lives `ttl` seconds more, or with None as long as it had left. Raises
        `Conflict` when it was changed, `RecordGone` when it expired or was deleted.
        """
        ...

    def keep_alive(self, record: Record, ttl: float) -> Record:
        """Let it live `ttl` seconds from now; wakes nobody.

        `ttl` is the one it was written with. Raises `RecordGone` if it has expired, and
        `Conflict` if somebody else changed it. etcd v3 renews the lease it was written
        on, and sees neither a deletion nor a change: `list` tells.
        """
        ...

    def delete(self, record: Record) -> None:
        """Delete it if it is still as read; nothing happens if it is gone.

        Raises `Conflict` when it was changed since.
        """
        ...

    def list(self, prefix: str) -> Snapshot:
        """Return the live records, ordered by `created`; never a stale answer."""
        ...

    def wait(
        self, prefix: str, since: Snapshot, timeout: float, *, gone: bool = False
    ) -> None:
        """Block until something under `prefix` changed since the snapshot was taken.

        With `gone` only until one of its records went. A hint: it may return early, so
        callers list again; it returns at the latest after `timeout` seconds. Raises
        `Stopped` at once when the stop is requested.
        """
        ...

    def prepare(self, ttl: float) -> None:
        """Do ahead what the next `update` with this ttl would have to do first."""
        ...

    def time_left(self, record: Record) -> float:
        """Return the seconds the record has left, 0 when it is gone."""
        ...

    def local_address(self) -> str:
        """Return the address of this machine as the store would see it."""
        ...

    def close(self) -> None:
        """Give back what no record needs; never raises."""
        ...

"""The store primitives: the recipes are written once over this protocol."""

from __future__ import annotations

from typing import Protocol

from service_monitor.records import Record, Snapshot

CALL_TIMEOUT = 5.0
"""Seconds for one primitive, with all its requests and all endpoints."""


def is_everything_below(prefix: str) -> bool:
    """Tell whether a prefix means all keys below it, and not that one key."""
    return prefix.endswith("/") or not prefix


def matches(prefix: str, key: str) -> bool:
    """Tell whether a key is what a prefix means."""
    return key.startswith(prefix) if is_everything_below(prefix) else key == prefix


class Store(Protocol):
    """Six primitives and three helpers; each blocks for its requests.

    Each takes `CALL_TIMEOUT` seconds at the most, `wait` its timeout. Each may raise
    `StoreUnavailable` (whether a write took place is then unknown), `StoreRefused`,
    `LocalLack` when this machine lacks threads, files or memory, and `Stopped`. Keys
    are relative, without a leading slash. Where a `prefix` ends in a slash it means
    everything below it, else that one key (`matches`).
    """

    def create(self, key: str, value: str, ttl: float | None) -> Record:
        """Write `key` if there is no live record, to live `ttl` seconds.

        With None it is durable: it stays until it is deleted, also when this machine
        or the store is restarted. Raises `KeyExists`. Repeating a create whose reply
        was lost may raise it too, with one's own record in it: compare the nonce. Two
        creates of the same value may both succeed: a claim needs a nonce.
        """
        ...

    def update(self, record: Record, value: str, ttl: float | None) -> Record:
        """Replace the value if the record is still as read; `created` stays.

        It then lives `ttl` seconds more, or with None as long as it had left: a durable
        one stays durable. Raises `Conflict` when it was changed, `RecordGone` when it
        expired or was deleted.
        """
        ...

    def keep_alive(self, record: Record, ttl: float) -> Record:
        """Let it live `ttl` seconds from now; wakes nobody.

        `ttl` is the one it was written with; a durable record needs none of this, and
        etcd v2 would make it end. Raises `RecordGone` if it has expired, and
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

    def time_left(self, record: Record) -> float:
        """Return the seconds the record has left, 0 when it is gone.

        `math.inf` for a durable one.
        """
        ...

    def local_address(self) -> str:
        """Return the address of this machine as the store would see it.

        Blocks in the resolver.
        """
        ...

    def close(self) -> None:
        """Give back what no record needs; never raises, and blocks as a primitive."""
        ...

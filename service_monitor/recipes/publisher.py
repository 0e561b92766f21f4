"""Keep one service's registration in the store as it should be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from service_monitor.errors import (
    Conflict,
    KeyExists,
    RecordGone,
    StoreRefused,
)
from service_monitor.recipes.health import Health
from service_monitor.recipes.identity import registered_elsewhere, same_host
from service_monitor.recipes.release import remove_own
from service_monitor.recipes.session import Session
from service_monitor.recipes.trouble import FAILURES
from service_monitor.records import (
    Record,
    Registration,
    new_nonce,
    nonce_of,
    registration_key,
)
from service_monitor.stores.base import Store
from service_monitor.timing import timestamp

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """Which service is published, and as what; its record lives `ttl` seconds."""

    label: str
    service_id: str
    host: str
    ttl: float = 15.0
    info: dict[str, Any] = field(default_factory=dict)
    port: int | None = None

    @property
    def key(self) -> str:
        """Return the key of its registration."""
        return registration_key(self.label, self.service_id)


class Publisher:
    """Compares what is stored with what should be, at each `reconcile`.

    So a lost write, an expired or a deleted record heals at the next one. Where two
    publish the same service id, the one that started last wins; but what another host
    publishes is left alone until it lapses.

    The record is kept alive, in a thread of its own, while `vouch()` is true. `alive`
    is called between two calls to the store that may take long. `remember` is called
    before an "up" is written, with whether the record is to begin another life; what it
    raises ends the round.
    """

    def __init__(
        self,
        store: Store,
        service: Service,
        vouch: Callable[[], bool],
        alive: Callable[[], None] = lambda: None,
        remember: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._service = service
        self._remember = remember
        self._vouch = vouch
        self._alive = alive
        self._nonce = new_nonce()
        self._session: Session | None = None
        self._since = timestamp()
        self._up: bool | None = None
        self._gave_way = False  # to another one that publishes our service id
        self.wrote = False
        """Whether a record of ours may be, or have been, in the store."""

    def reconcile(self, health: Health) -> bool:
        """Make the store tell this health; return whether it does.

        Where our record is gone, a start of this service id took it back: an "up" that
        the latest probe denies is then not published again. Blocks for a few calls to
        the store. Raises `StoreError` and `LocalLack`.
        """
        try:
            found = self._store.list(self._service.key).records
            if self._session and not found:
                health.doubt()
            return self._write(found, self._wanted(health))
        except (KeyExists, Conflict, RecordGone):
            return False  # somebody else wrote meanwhile: the next round sees what
        except FAILURES:
            if self._session and not health.up:
                self._remove_denied_up()
            raise

    def _wanted(self, health: Health) -> str:
        if health.up != self._up:
            self._up, self._since = health.up, timestamp()
        return Registration(
            service_id=self._service.service_id,
            host=self._service.host,
            state="up" if health.up else "down",
            reason=health.reason,
            nonce=self._nonce,
            info=self._service.info,
            since=self._since,
            port=self._service.port,
        ).to_json()

    def _remove_denied_up(self) -> None:
        """Keep no "up" alive that probes deny; an etcd out of space still deletes."""
        self._alive()
        self._end_session()
        with suppress(*FAILURES):
            remove_own(self._store, self._service.key, self._nonce, tries=1)

    def withdraw(self) -> bool:
        """Take the registration back, if it is ours; return whether there was one.

        Blocks for a few calls to the store. Raises `StoreError`.
        """
        self._end_session()
        return remove_own(self._store, self._service.key, self._nonce)

    def _write(self, found: Sequence[Record], wanted: str) -> bool:
        key, session, ttl = self._service.key, self._session, self._service.ttl
        if found and self._is_another(found[0]):
            return self._give_way(found[0])
        anew = not found or session is None or not session.keeps(found[0])
        if self._up and (anew or found[0].value != wanted):
            self._remember(anew)
            self._alive()
        if not found:
            self._end_session()
            self._keep(self._begin(lambda: self._store.create(key, wanted, ttl)))
        elif session is None or anew:
            # An earlier run's; or ours, and the reply to its write was lost.
            record = found[0]
            self._keep(self._begin(lambda: self._store.update(record, wanted, ttl)))
        elif found[0].value != wanted:
            session.update(found[0], wanted)
        self._gave_way = False
        return True

    def _begin(self, write: Callable[[], Record]) -> Record:
        """Write a record that is to be ours; note whether it may have come through."""
        before, self.wrote = self.wrote, True
        try:
            return write()
        except (StoreRefused, KeyExists, Conflict, RecordGone):
            self.wrote = before
            raise

    def _keep(self, record: Record) -> None:
        self._end_session()
        self._session = Session(
            self._store, record, self._service.ttl, vouch=self._vouch
        )

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.end()
        self._session = None

    def _is_another(self, found: Record) -> bool:
        """Tell whether the record is another process's that is not to be replaced."""
        if nonce_of(found.value) == self._nonce:
            return False
        return self._session is not None or self._is_elsewhere(found)

    def _is_elsewhere(self, other: Record) -> bool:
        found = Registration.from_json(other.value)
        return found is not None and not same_host(found.host, self._service.host)

    def _give_way(self, other: Record) -> bool:
        if not self._gave_way:
            self._log_other(other)
        if self._session is not None:
            self._session.end()
        self._gave_way = True
        return False

    def _log_other(self, other: Record) -> None:
        found = Registration.from_json(other.value)
        if found and self._is_elsewhere(other):
            log.error("publishing nothing meanwhile: %s", registered_elsewhere(found))
            return
        log.error(
            "another watch publishes service id %s since this one began: leaving "
            "it to that one. Has each node a service id of its own? It says: %s",
            self._service.service_id,
            other.value,
        )

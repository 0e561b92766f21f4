"""Whether the cluster is founded: asked beside the probes, and written down.

It is founded when the service was up and then its settled URL said yes once. That is
the claimed founder's to write, or anybody's where the store knows of no founder: it
has lost its data.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Protocol

from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.node.probe import Probe
from service_monitor.recipes.founder import Founder, founder_key
from service_monitor.recipes.publisher import Service
from service_monitor.records import Record
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)


class Founded(Protocol):
    """Takes part in each round of a watcher."""

    def look(self) -> None:
        """Look what the store knows, before the state is published."""
        ...

    def ask(self) -> None:
        """Find out whether the cluster is founded. Called while the store says "up"."""
        ...


class NotAsked:
    """With --found=empty: nobody asks."""

    def look(self) -> None:
        """Do nothing."""

    def ask(self) -> None:
        """Do nothing."""


class AskedOnce:
    """With --found=once: asked until it is founded, and known from then on.

    `settled` is asked; where it is None to be up is enough. Each round makes one call
    to the store, and one more where it writes. Raises `StoreError`.
    """

    def __init__(self, store: Store, service: Service, settled: Probe | None) -> None:
        self._store = store
        self._service = service
        self._settled = settled
        self._key = founder_key(service.label)
        self._done = False
        self._claims = False  # the store said, at any time, that this service does
        self._record: Record | None = None
        self._logged = False

    def look(self) -> None:
        """Look what the store knows; write again what it has lost.

        Before the state is published: whoever sees this service up then sees its claim,
        and does not take the cluster for founded.
        """
        records = self._store.list(self._key).records
        self._record = records[0] if records else None
        if self._record:
            founder = self._claim()
            self._claims = self._claims or founder is not None
        elif self._done:
            self._write("it is settled, and the store knew of no founder")
        elif self._claims:
            log.warning(
                "label %s: the store lost the claim to found: written again",
                self._service.label,
            )
            name, host = self._service.service_id, self._service.host
            claim = Founder(name, host, "claimed").to_json()
            with suppress(KeyExists):
                self._record = self._store.create(self._key, claim, None)

    def ask(self) -> None:
        """Ask, unless it was answered before; write that the cluster is founded."""
        self._done = self._done or self._says_yes()
        if self._done:
            self._write("it is up and settled" if self._settled else "it is up")

    def _says_yes(self) -> bool:
        if self._settled is None:
            return True
        ok, reason = self._settled()
        if not ok and not self._logged:
            log.info(
                "label %s: up, and not settled yet: --settled-url says %s",
                self._service.label,
                reason,
            )
            self._logged = True
        return ok

    def _claim(self) -> Founder | None:
        """Return this service's own claim, if the store has it."""
        founder = self._record and Founder.from_json(self._record.value)
        mine = founder and founder.service_id == self._service.service_id
        return founder if founder and mine and not founder.founded else None

    def _write(self, reason: str) -> None:
        """Write "founded" in the place of our claim, or where there is no record."""
        label, name = self._service.label, self._service.service_id
        claim = self._claim()
        if self._record is not None and claim is None:
            return
        others = claim.others if claim else {}
        host = self._service.host
        value = Founder(name, host, "founded", reason, others=others).to_json()
        with suppress(KeyExists, Conflict, RecordGone):  # the next round looks again
            if self._record is None:
                self._record = self._store.create(self._key, value, None)
            else:
                self._record = self._store.update(self._record, value, None)
            log.info("label %s: founded, as %s knows: %s", label, name, reason)

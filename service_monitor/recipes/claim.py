"""The claim to found a cluster: looked at, made, given back, and kept as "founded"."""

from __future__ import annotations

import logging
from dataclasses import replace

from service_monitor.errors import Conflict, KeyExists, RecordGone
from service_monitor.recipes.founder import Founder, founder_key
from service_monitor.recipes.founding import ANYBODY, Decision, decide, read_picture
from service_monitor.recipes.lease import Request
from service_monitor.recipes.release import remove_own
from service_monitor.recipes.retry import Changed
from service_monitor.records import label_prefix, new_nonce
from service_monitor.stores.base import Store

log = logging.getLogger(__name__)


class Founding:
    """What one start of one service id has to do with its cluster's founding.

    With --found=empty that is nothing: no call is sent. Each method makes a few calls
    to the store, and raises `StoreError`.
    """

    def __init__(self, store: Store, request: Request) -> None:
        self._store = store
        self._request = request
        self._key = founder_key(request.label)
        self._nonce = new_nonce()
        self._claimed = False  # a claim of this process may be in the store

    def glance(self) -> Decision:
        """Decide by the founder's record alone, with one small call.

        "found" and "join" are for good. "claim" and "wait" call for a `look`.
        """
        request = self._request
        if request.found != "once":
            return ANYBODY
        label, name = request.label, request.service_id
        alone = self._store.list(self._key)
        decision = decide(read_picture(alone, label, name), label, name)
        return replace(decision, snapshot=alone)

    def look(self) -> Decision:
        """Decide what this start is to do, by the whole label where that matters."""
        decision = self.glance()
        if decision.act in ("found", "join"):
            return decision
        label, name = self._request.label, self._request.service_id
        everything = self._store.list(label_prefix(label))
        closer = decide(read_picture(everything, label, name), label, name)
        return replace(closer, snapshot=decision.snapshot)

    def act(self, decision: Decision) -> None:
        """Write the claim, or that the cluster was founded, where that is decided.

        Raises `Changed` where somebody else wrote meanwhile.
        """
        if decision.act == "claim":
            self._claimed = True
            self._create(self._claim())
            label, name = self._request.label, self._request.service_id
            log.info("label %s: %s claims to found the cluster", label, name)
        elif decision.act == "learn":
            self._create(self._founded(decision.why))
            log.info(
                "label %s: taken as founded: %s", self._request.label, decision.why
            )

    def role(self, hosts: list[str]) -> bool | str:
        """Return whether this start founds, now that these other hosts are up.

        Or what it has to wait for: then ask again.
        """
        try:
            decision = self.look()
            if decision.act == "wait":
                return decision.why
            if decision.act == "claim" and hosts:
                return f"{', '.join(hosts)} came up just now"
            self.act(decision)
            if hosts:
                self._join_instead(f"{', '.join(hosts)} came up meanwhile")
        except Changed:
            return "somebody else founds"
        return not hosts and decision.act in ("found", "claim")

    def _join_instead(self, why: str) -> None:
        """Turn a claim of this process into "founded": others are up after all.

        The claim of an earlier life stays: its COMMAND may have founded.
        """
        if not self._claimed:
            return
        for record in self._store.list(self._key).records:
            found = Founder.from_json(record.value)
            if found and found.nonce == self._nonce:
                try:
                    value = self._founded(why).to_json()
                    self._store.update(record, value, None)
                except (Conflict, RecordGone) as error:
                    raise Changed from error
        self._claimed = False

    def give_back(self) -> None:
        """Take the claim back if this process made it: COMMAND was never started."""
        if self._claimed and remove_own(self._store, self._key, self._nonce):
            log.info("label %s: gave the claim to found back", self._request.label)
        self._claimed = False

    def _create(self, founder: Founder) -> None:
        try:
            self._store.create(self._key, founder.to_json(), None)
        except KeyExists as error:
            raise Changed from error

    def _claim(self) -> Founder:
        request = self._request
        return Founder(request.service_id, request.host, "claimed", nonce=self._nonce)

    def _founded(self, why: str) -> Founder:
        request = self._request
        return Founder(request.service_id, request.host, "founded", why)

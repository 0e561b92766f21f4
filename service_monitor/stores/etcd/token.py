"""The token of an etcd user, which dies without notice.

Simple tokens end after 5 idle minutes, and with a restart of etcd. The rules:

1. A failure that may come from a dead token leads to one login and one repeat within
   the deadline of the call. What fails again with the fresh token is the answer.
2. If the failure may as well be something else, and a fresh token was no help, no login
   is tried for such a failure for `NO_HELP` seconds: an outage brings no storm of
   logins, each of which costs etcd a tenth of a second.
3. Without a token the login comes first. It is all that an outage sees of us then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from service_monitor.errors import StoreError
from service_monitor.stores.etcd.failures import DeadToken, dead_token_in
from service_monitor.timing import now

R = TypeVar("R")

NO_HELP = 10.0
"""Seconds for which a login is no remedy after one that was none."""


class Token:
    """The token that this process has, "" if etcd wants none."""

    def __init__(self) -> None:
        self.value: str | None = None
        self._no_help_until = -math.inf

    def use(self, send: Callable[[str], R], log_in: Callable[[], str]) -> R:
        """Send with the token, and by the rules above with a new one."""
        token = self.value
        fresh = token is None
        if token is None:
            token = self.value = log_in()
        try:
            return send(token)
        except StoreError as error:
            doubt = dead_token_in(error)
            if doubt is DeadToken.PERHAPS and (fresh or now() < self._no_help_until):
                self._no_help_until = now() + NO_HELP if fresh else self._no_help_until
                raise
            if doubt is DeadToken.NO:
                raise
        if self.value == token:
            self.value = None
        # Else another thread of ours has logged in meanwhile.
        new = self.value
        if new is None:
            new = self.value = log_in()
        try:
            return send(new)
        except StoreError as error:
            if dead_token_in(error) is not DeadToken.NO:
                self._no_help_until = now() + NO_HELP
            raise

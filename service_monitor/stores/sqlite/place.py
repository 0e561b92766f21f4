"""Which file a sqlite:// URL names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from service_monitor.net.calls import Bounds
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.stores.url import Grammar
from service_monitor.text import quoted

_FORM = ": write sqlite:///DIRECTORY/FILE.db, there %3F for ? and %23 for #"
_GRAMMAR = Grammar(form=_FORM, places="", path="/.+", options=None, plain=False)


@dataclass(frozen=True)
class SqlitePlace:
    """A file in a directory that is there; the file need not be."""

    path: str

    def open(self, bounds: Bounds, call_timeout: float) -> Store:
        """Open the file at its first use; see `stores.opening.open_store`."""
        from service_monitor.stores.sqlite.store import SqliteStore

        return SqliteStore(self.path, bounds, call_timeout=call_timeout)

    def prepare(self, bounds: Bounds, *, dry_run: bool) -> Sequence[str]:
        """See whether it could be opened: nothing has to be made."""
        self.open(bounds, CALL_TIMEOUT).close()
        return ()


def parse_sqlite(url: str) -> SqlitePlace:
    """Read `sqlite:///DIRECTORY/FILE.db`. Raises `ConfigError`."""
    parsed = _GRAMMAR.parse(url)
    path = parsed.path
    if not path.isprintable() or path.endswith("/"):
        raise parsed.wrong(_FORM)
    if os.path.isdir(path):
        raise parsed.wrong(": that is a directory")
    if not os.path.isdir(directory := os.path.dirname(path)):
        raise parsed.wrong(
            f": there is no directory {quoted(directory)}: make it, or mount it first"
        )
    return SqlitePlace(path)

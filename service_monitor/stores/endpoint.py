"""One address of a store."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.net.zones import carried


@dataclass(frozen=True)
class Endpoint:
    """One member's client address; the host as in a URL, an IPv6 one in brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Return it as HTTP libraries take it."""
        return f"{self.scheme}://{carried(self.host)}:{self.port}"

"""The two APIs of etcd, as messages name them."""

from __future__ import annotations

from typing import NamedTuple


class Api(NamedTuple):
    """Which of etcd's two APIs is spoken: its name, its URLs, why it may be missing."""

    name: str
    scheme: str
    missing: str

    @property
    def secure(self) -> str:
        """Say that a port is one for TLS."""
        return f"it speaks TLS: use {self.scheme}s:// for this port"

    @property
    def strange(self) -> str:
        """Say that what came is not of this API."""
        return f"not an answer of etcd's {self.name} API"


V3 = Api(
    "v3",
    "etcd",
    "no v3 API here: is it etcd 3.4 or later, its JSON gateway on (with a "
    "configuration file: enable-grpc-gateway: true), not v2 only (etcd2://), its HTTP "
    "not on another port (--listen-client-http-urls), behind no proxy that wants a "
    "path, and etcd at all?",
)
V2 = Api(
    "v2",
    "etcd2",
    "no v2 API here: start etcd with --enable-v2 (up to 3.5) or use etcd://; or is it "
    "behind a proxy that wants a path, or no etcd at all?",
)

"""Certificates of a CA that nobody else knows."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Certificates:
    """A CA's bundle, and a client's certificate and key, as files."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self._server = authority.issue_cert("127.0.0.1", "localhost")
        client = authority.issue_cert("client.example")
        self.ca = str(directory / "ca.pem")
        self.cert = str(directory / "client.pem")
        self.key = str(directory / "client.key")
        authority.cert_pem.write_to_path(self.ca)
        client.cert_chain_pems[0].write_to_path(self.cert)
        client.private_key_pem.write_to_path(self.key)

    def server_context(self) -> ssl.SSLContext:
        """Return what a TLS server of this CA needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.configure_cert(context)
        return context

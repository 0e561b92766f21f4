"""Which etcd a URL names, and how to be let in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service_monitor.net.addresses import check_zone, in_url, split_port
from service_monitor.net.calls import Bounds
from service_monitor.net.tls import check_tls
from service_monitor.stores.base import CALL_TIMEOUT, Store
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.passwords import read_credentials
from service_monitor.stores.url import PREFIX, Grammar

PORT = 2379
DEFAULT_PREFIX = "/service_monitor"
_TLS_FILES = {"ca": "ETCDCTL_CACERT", "cert": "ETCDCTL_CERT", "key": "ETCDCTL_KEY"}
_GRAMMAR = Grammar(
    form="does not read as etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT][/PREFIX]; "
    "in a password % is %25, / %2F, @ %40, # %23, ? %3F, and a prefix holds "
    "letters, digits, '.', '_' and '-'",
    places=".*",
    path=PREFIX,
    options=(*_TLS_FILES, "password-file"),
    users=True,
)


@dataclass(frozen=True)
class Access:
    """How to be let in, and under which prefix to keep the records.

    `ca` is a bundle's path, `cert` the paths of a certificate and its key.
    """

    prefix: str = DEFAULT_PREFIX
    ca: str | None = None
    cert: tuple[str, str] | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class EtcdPlace:
    """The members of one etcd, and which of its APIs to speak."""

    version: Literal[2, 3]
    endpoints: tuple[Endpoint, ...]
    access: Access

    def open(self, bounds: Bounds, call_timeout: float) -> Store:
        """Open it by its API; sends nothing. See `stores.opening.open_store`."""
        if self.version == 2:
            from service_monitor.stores.etcd.v2 import Etcd2Store

            return Etcd2Store(self.endpoints, self.access, bounds, call_timeout)
        from service_monitor.stores.etcd.v3 import Etcd3Store

        return Etcd3Store(self.endpoints, self.access, bounds, call_timeout)

    def prepare(self, bounds: Bounds, *, dry_run: bool) -> Sequence[str]:
        """See whether it could be opened: nothing has to be made."""
        self.open(bounds, CALL_TIMEOUT).close()
        return ()


def parse_etcd(url: str, environ: Mapping[str, str]) -> EtcdPlace:
    """Read `etcd[2][s]://[user[:password]@]h1[:port],h2[/prefix][?option=value&...]`.

    What the URL leaves out comes from ETCDCTL_CACERT, _CERT, _KEY, _USER and _PASSWORD.
    Reads the files that they name. Raises `ConfigError`, which shows no password, and
    `LocalLack`.
    """
    parsed = _GRAMMAR.parse(url)
    secure, options = parsed.scheme.endswith("s"), parsed.options
    try:
        endpoints = _endpoints("https" if secure else "http", parsed.places)
        access = Access(
            parsed.path.rstrip("/") or DEFAULT_PREFIX,
            *_tls(options, environ, secure=secure),
            *read_credentials(
                parsed.user, parsed.password, options.get("password-file"), environ
            ),
        )
        check_tls(access.ca, access.cert)
    except ValueError as error:
        raise parsed.wrong(str(error)) from None
    version: Literal[2, 3] = 2 if parsed.scheme.startswith("etcd2") else 3
    return EtcdPlace(version, endpoints, access)


def _endpoints(scheme: str, hosts: str) -> tuple[Endpoint, ...]:
    places = dict.fromkeys(map(split_port, hosts.split(",")))
    for host, _ in places:
        check_zone(host)
    return tuple(
        Endpoint(scheme, in_url(host, None), port or PORT) for host, port in places
    )


def _tls(
    options: Mapping[str, str], environ: Mapping[str, str], *, secure: bool
) -> tuple[str | None, tuple[str, str] | None]:
    if not secure:
        if options.keys() & _TLS_FILES.keys():
            raise ValueError("needs TLS for ca, cert and key: etcds:// or etcd2s://")
        return None, None
    ca, cert, key = (
        options.get(option) or environ.get(variable) or None
        for option, variable in _TLS_FILES.items()
    )
    if bool(cert) != bool(key):
        raise ValueError("needs both cert and key, or neither")
    return ca, (cert, key) if cert and key else None

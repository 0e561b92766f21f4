"""Several addresses of one etcd: reading them from a URL, and failing over."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from service_monitor.errors import (
    ConfigError,
    LocalLack,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.net.addresses import check_zone, in_url, split_port
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import local_address
from service_monitor.net.here import default_gateway, is_container, look
from service_monitor.net.meaning import elsewhere_another
from service_monitor.net.tls import check_tls
from service_monitor.net.urls import mask_url
from service_monitor.stores.endpoint import Endpoint as Endpoint
from service_monitor.stores.etcd.passwords import read_credentials
from service_monitor.text import quoted
from service_monitor.timing import now

R = TypeVar("R")

log = logging.getLogger(__name__)

_URL = re.compile(
    r"(?P<scheme>etcd2?s?)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)"
    r"(?P<prefix>(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*)/?(?:\?(?P<options>[^@#]*))?",
    re.IGNORECASE,
)
_PORT = 2379
DEFAULT_PREFIX = "/service_monitor"
_TLS_FILES = {"ca": "ETCDCTL_CACERT", "cert": "ETCDCTL_CERT", "key": "ETCDCTL_KEY"}


@dataclass(frozen=True)
class Access:
    """How to be let in, and under which prefix to keep the records."""

    prefix: str = DEFAULT_PREFIX
    ca: str | None = None
    cert: tuple[str, str] | None = None
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        # Never the password.
        return f"Access(prefix={self.prefix!r}, user={self.user!r})"


def parse_endpoints(
    url: str, environ: Mapping[str, str]
) -> tuple[list[Endpoint], Access]:
    """Read `etcd[2][s]://[user[:password]@]h1[:port],h2[/prefix][?option=value&...]`.

    What the URL leaves out comes from ETCDCTL_CACERT, _CERT, _KEY, _USER and _PASSWORD.
    Raises `ConfigError`, without showing a password.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(f"store {quoted(mask_url(url))} {what}")

    match = _URL.fullmatch(url)
    if match is None or not (url.isascii() and url.isprintable()) or " " in url:
        raise wrong(
            "does not read as etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT][/PREFIX]; "
            "in a password % is %25, / %2F, @ %40, # %23, ? %3F, and a prefix holds "
            "letters, digits, '.', '_' and '-'"
        )
    secure = match["scheme"].lower().endswith("s")
    try:
        endpoints = _endpoints("https" if secure else "http", match["hosts"])
        options = _options(match["options"] or "")
        access = Access(
            match["prefix"] or DEFAULT_PREFIX,
            *_tls(options, environ, secure=secure),
            *read_credentials(match["user"], options.get("password-file"), environ),
        )
        check_tls(access.ca, access.cert)
    except ValueError as error:
        raise wrong(str(error)) from None
    return endpoints, access


def _endpoints(scheme: str, hosts: str) -> list[Endpoint]:
    places = dict.fromkeys(map(split_port, hosts.split(",")))
    for host, _ in places:
        check_zone(host)
    return [
        Endpoint(scheme, in_url(host, None), port or _PORT) for host, port in places
    ]


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in (*_TLS_FILES, "password-file"):
            known = ", ".join(_TLS_FILES)
            raise ValueError(
                f"has an unknown option {quoted(name)}: use {known}, password-file"
            )
        if not value or name in options:
            raise ValueError(f"needs {name} once, with a value")
        options[name] = value
    return options


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


def default_url(environ: Mapping[str, str], root: Path = Path("/")) -> str:
    """Return the store that goes without saying.

    That is what $ETCDCTL_ENDPOINTS says, else etcd v3 on port 2379 of this host or,
    inside a container, of its default gateway. Raises `ConfigError`.
    """
    # Like etcdctl: without a scheme it is TLS if there is something to do it with.
    tls_is_set = environ.get("ETCDCTL_CACERT") or environ.get("ETCDCTL_CERT")
    plain = "https" if tls_is_set else "http"
    listed = environ.get("ETCDCTL_ENDPOINTS", "")
    if not listed.strip():
        listed = f"{_default_host(root)}:{_PORT}"
    schemes, hosts = set(), []
    for text in listed.split(","):
        scheme, found, rest = text.strip().rpartition("://")
        schemes.add(scheme.lower() if found else plain)
        hosts.append(rest.rstrip("/"))
    if schemes not in ({"http"}, {"https"}):
        raise ConfigError(f"{quoted(mask_url(listed))} is not all http:// or https://")
    return f"{'etcds' if schemes == {'https'} else 'etcd'}://{','.join(hosts)}"


def _default_host(root: Path) -> str:
    """Return the loopback address or, in a container, the default gateway's."""
    if not is_container(root):
        return "127.0.0.1"
    if not (root / "proc/net").is_dir():
        raise LocalLack(
            "cannot tell this container's default gateway, where the default store "
            "is: no /proc/net here: name the store with --store"
        )
    return default_gateway(root) or "127.0.0.1"  # the host's own network, or none


class RefusedHere(StoreRefused):
    """One endpoint will not serve us; another one may. Its text names no endpoint."""


class Failover:
    """Go from endpoint to endpoint until one answers; the last good one comes first."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._endpoints = endpoints
        self._good = 0

    @property
    def current(self) -> Endpoint:
        """Return the endpoint that answered last."""
        return self._endpoints[self._good]

    def call(self, function: Callable[[Endpoint, float], R], seconds: float) -> R:
        """Call with an endpoint and its share of the seconds.

        Each has an equal share of what is left, so that a black hole cannot eat up the
        others' time. Raises `StoreUnavailable` naming what each one said, or, if every
        one of them said `RefusedHere`, `StoreRefused`; any other refusal at once.
        """
        deadline, first, count = now() + seconds, self._good, len(self._endpoints)
        said, refused = [], 0
        for turn in range(count):
            index = (first + turn) % count
            share = (deadline - now()) / (count - turn)
            if share <= 0:
                break
            try:
                result = function(self._endpoints[index], share)
            except (StoreUnavailable, RefusedHere) as error:
                refused += isinstance(error, RefusedHere)
                said.append(f"{self._endpoints[index]}: {error}")
                self._good = (index + 1) % count
            else:
                self._good = index
                return result
        if refused == count:
            raise StoreRefused("; ".join(said))
        raise StoreUnavailable("; ".join(said) or "no answer in time")

    def local_address(self, seconds: float, bounds: Bounds) -> str:
        """Return the address that this machine would reach the store from.

        A name server may hang, so each endpoint has its share of the seconds. Raises
        `StoreUnavailable`, `LocalLack`, and `Stopped` as soon as that is requested.
        """

        def ask(endpoint: Endpoint, share: float) -> str:
            try:
                return bounded(
                    lambda: local_address(endpoint.host, endpoint.port, share),
                    share,
                    bounds,
                    waits=True,
                )
            except OSError as error:
                raise StoreUnavailable(describe(error)) from None

        try:
            address = self.call(ask, seconds)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"cannot tell which local address reaches the store ({error}): name "
                "this host with --host"
            ) from None
        if elsewhere_another(address, look()):
            log.warning(
                "the store is on this machine (%s): other machines would be told "
                "to connect to %s. If there are any, name this host with --host",
                self.current,
                address,
            )
        return address

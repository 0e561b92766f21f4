"""Which etcd is the store where no URL names one: etcdctl's, or this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service_monitor.errors import ConfigError, LocalLack
from service_monitor.net.here import default_gateway, is_container
from service_monitor.net.urls import mask_url
from service_monitor.stores.etcd.place import PORT
from service_monitor.text import quoted


def default_url(environ: Mapping[str, str], root: Path = Path("/")) -> str:
    """Return the URL of the store that goes without saying.

    That is what $ETCDCTL_ENDPOINTS says, else etcd v3 on port 2379 of this host or,
    inside a container, of its default gateway. Raises `ConfigError`, and `LocalLack`
    in a container that cannot tell its gateway.
    """
    # Like etcdctl: without a scheme it is TLS if there is something to do it with.
    tls_is_set = environ.get("ETCDCTL_CACERT") or environ.get("ETCDCTL_CERT")
    plain = "https" if tls_is_set else "http"
    listed = environ.get("ETCDCTL_ENDPOINTS", "")
    if not listed.strip():
        listed = f"{_default_host(root)}:{PORT}"
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

"""The variables of etcdctl that this program does not follow, refused by name.

To leave one aside would be to ask another store than etcdctl does, or in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from service_monitor.errors import ConfigError
from service_monitor.stores.etcd.default import default_url
from service_monitor.text import has_windows_end, is_in_quotes

_READ = ("ENDPOINTS", "CACERT", "CERT", "KEY", "USER")
"""Values that quotes never belong to; to a password they may."""


class _Unread(NamedTuple):
    """What a variable does to etcdctl, what to set instead, and when it counts."""

    does: str
    instead: str
    new: str | None = None
    """The name that does it today: if that is set, the old one is not needed."""
    counts: Callable[[str], bool] = bool


def _on(value: str) -> bool:
    return value.strip().lower() not in ("", "0", "f", "false", "no", "off")


_SRV = "which is not looked up here", "ETCDCTL_ENDPOINTS=HOST:2379,..."
_OLD = "a name of old releases of etcdctl"
_UNREAD = {
    "DISCOVERY_SRV": _Unread(*_SRV),
    "DISCOVERY_SRV_NAME": _Unread(*_SRV),
    "ENDPOINT": _Unread(_OLD, "ETCDCTL_ENDPOINTS", "ENDPOINTS"),
    "PEERS": _Unread(_OLD, "ETCDCTL_ENDPOINTS", "ENDPOINTS"),
    "CA_FILE": _Unread(_OLD, "ETCDCTL_CACERT", "CACERT"),
    "CERT_FILE": _Unread(_OLD, "ETCDCTL_CERT", "CERT"),
    "KEY_FILE": _Unread(_OLD, "ETCDCTL_KEY", "KEY"),
    "USERNAME": _Unread(_OLD, "ETCDCTL_USER", "USER"),
    "AUTH_JWT_TOKEN": _Unread(
        "a token, which is not sent here", "ETCDCTL_USER and ETCDCTL_PASSWORD"
    ),
    "INSECURE_SKIP_TLS_VERIFY": _Unread(
        "and here certificates are always checked",
        "ETCDCTL_CACERT=FILE with the CA of that etcd",
        counts=_on,
    ),
    "INSECURE_TRANSPORT": _Unread(
        "which asks for TLS",
        "https:// in ETCDCTL_ENDPOINTS",
        counts=lambda v: not _on(v),
    ),
    "API": _Unread(
        "which asks for the API of etcd v2",
        "SERVICE_MONITOR_STORE=etcd2://HOST:2379",
        counts=lambda value: value.strip() == "2",
    ),
}


def refuse_unread(environ: Mapping[str, str]) -> None:
    """Refuse what says whom or how to ask, and is not followed. Raises `ConfigError`.

    That is for a store that the variables name; a store's URL says it all itself.
    """
    refuse_quoted(environ)
    for name, unread in _UNREAD.items():
        value = environ.get(f"ETCDCTL_{name}", "")
        if not value.strip() or not unread.counts(value):
            continue
        if unread.new and environ.get(f"ETCDCTL_{unread.new}"):
            continue
        if name == "INSECURE_TRANSPORT" and default_url(environ).startswith("etcds:"):
            continue
        raise ConfigError(
            f"ETCDCTL_{name} is set, {unread.does}: set {unread.instead} instead, or "
            "name the store with --store"
        )


def refuse_quoted(environ: Mapping[str, str]) -> None:
    """Refuse values that quotes or the end of a Windows line were left in.

    Raises `ConfigError`, without showing them: a user has his password beside him.
    """
    for name in _READ:
        value = environ.get(f"ETCDCTL_{name}", "")
        if is_in_quotes(value) or has_windows_end(value):
            raise ConfigError(
                f"ETCDCTL_{name} is in quotes or ends in a carriage return, which "
                "docker run --env-file keeps: leave them out"
            )

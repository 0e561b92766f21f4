"""What options take: each value is checked before anything is sent."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from service_monitor.errors import ConfigError
from service_monitor.net.addresses import is_host, is_nowhere
from service_monitor.net.tls import check_tls
from service_monitor.net.urls import mask_url
from service_monitor.node.monitored import LONGEST_URL, read_monitored_url
from service_monitor.node.signals import PASSED_ON, STOPS
from service_monitor.records import NAME
from service_monitor.text import hide, quoted
from service_monitor.timing import parse_duration

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:  # generic at runtime only since some 8.x
    _ParamType = click.ParamType

MOST_INFO = 16 * 1024
"""Characters of info as JSON: every store and every reader of `hosts` carries it."""

_TELLING = {"accept", "connection", "content-type", "host", "origin", "user-agent"}
"""Headers that hold no secret, and may turn up in a log for other reasons."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class _Type(_ParamType):
    """A value read by a function whose ValueError goes on where the quoted value ends.

    From the environment, an option that may be repeated takes a line for each.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[str], Any],
        show: Callable[[str], str] = quoted,
        is_secret: Callable[[Any], bool] = lambda value: False,
    ) -> None:
        self.name = name
        self.is_secret = is_secret
        """Tells of a value that was read whether there is a secret in it."""
        self._read = read
        self._show = show

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{self._show(value)} {error}", param, ctx)

    def split_envvar_value(self, rv: str) -> list[str]:
        if rv.lstrip().startswith("{"):
            return [rv]
        # No other line ends: a secret with one in it is not two values.
        lines = (line.strip(" \t") for line in re.split("\r?\n", rv))
        return [line for line in lines if line]


def read_name(text: str) -> str:
    """Check a label or a service id."""
    if not NAME.fullmatch(text):
        raise ValueError(
            "is not a name: 1 to 128 letters, digits, '.', '_' or '-', beginning with "
            "a letter or digit"
        )
    return text


def read_host(text: str) -> str:
    """Check a host to advertise: a name or an address, without a port."""
    if not is_host(text):
        raise ValueError("is not a host name or address (no port, no brackets)")
    if is_nowhere(text):
        raise ValueError("is nothing that others can connect to")
    if "%" in text:
        raise ValueError("has a zone (%...), which is this machine's own")
    return text


def read_header(text: str) -> tuple[str, str]:
    """Read `Name: value`."""
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if name.strip().lower() not in _TELLING:
        hide(value)
    if not colon or not _HEADER.fullmatch(name):
        raise ValueError("is not a header: write 'Name: value'")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("may hold printable ASCII only")
    return name, value


def read_info(text: str) -> dict[str, Any]:
    """Read `KEY=VALUE`, or a JSON object as the 2014 tool took it."""
    if len(text) > MOST_INFO or len(re.findall(r"[\[{]", text)) > 100:
        raise ValueError(f"is too much: up to {MOST_INFO} characters, 100 braces")
    if text.lstrip().startswith("{"):
        try:
            info = dict(json.loads(text))
        except ValueError as error:
            raise ValueError(f"is not JSON: {error}") from None
    else:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError("is not info: write KEY=VALUE or a JSON object")
        info = {key.strip(): value}
    try:
        json.dumps(info, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ValueError("holds what JSON in UTF-8 cannot: 1e999 or a byte") from None
    return info


def read_store(text: str) -> str:
    """Refuse a blank one: a variable that is unset must not mean the default store.

    And what is too long: no store could be reached by it, which is no outage.
    """
    if not text.strip():
        raise ValueError("names no store; for the default one leave --store out")
    if len(text) > LONGEST_URL:
        raise ValueError(f"is too long: up to {LONGEST_URL} characters")
    return text


def read_ca(text: str) -> str:
    """Check that the file holds certificates."""
    if not text:
        raise ValueError("names no file")
    check_tls(text)
    return text


def read_heartbeat_file(text: str) -> str:
    """Check that it may be a file. If it cannot be written, that ends no watch."""
    if not text or os.path.isdir(text):
        raise ValueError("is no file")
    return text


def read_number(text: str, most: int = 1_000_000) -> int:
    """Read a whole number from 1 on."""
    digits = text.strip()
    if re.fullmatch("[0-9]{1,19}", digits) and 1 <= int(digits) <= most:
        return int(digits)
    raise ValueError(f"is not a whole number from 1 to {most}")


def read_duration_or_0(text: str) -> float:
    """Read a duration that may be none at all."""
    return 0.0 if re.fullmatch("0(ms|s|m|h|d)?", text.strip()) else parse_duration(text)


def read_signal(text: str) -> int:
    """Read a signal as STOPSIGNAL and KillSignal have it: USR1, SIGRTMIN+4 or 10."""
    parts = re.fullmatch("(?:SIG)?([A-Z0-9]+)([+-][0-9]+)?", text.strip().upper())
    name, more = parts.groups() if parts else ("", None)
    base = signal.Signals.__members__.get(f"SIG{name}") or re.fullmatch("[0-9]+", name)
    if base is None:
        raise ValueError("is no signal: write it as USR1, SIGWINCH or RTMIN+4")
    number = int(base if isinstance(base, int) else base[0]) + int(more or 0)
    if number not in STOPS | PASSED_ON:
        raise ValueError("is no signal that may mean a stop, as USR1 or WINCH may")
    return number


def _without_password(url: str) -> str:
    """Quote a URL without its password."""
    return quoted(mask_url(url))


NAME_TYPE = _Type("name", read_name)
HOST_TYPE = _Type("host", read_host)
URL_TYPE = _Type(
    "url", read_monitored_url, _without_password, lambda url: bool(url.has_secret)
)
HEADER_TYPE = _Type(
    "header",
    read_header,
    lambda _: "what was given",  # it may be a secret
    lambda header: header[0].lower() == "authorization",
)
INFO_TYPE = _Type("key=value", read_info)
STORE_TYPE = _Type(
    "url", read_store, _without_password, lambda url: mask_url(url) != url
)
CA_TYPE = _Type("file", read_ca)
HEARTBEAT_TYPE = _Type("file", read_heartbeat_file)
DURATION = _Type("duration", parse_duration)
DURATION_OR_0 = _Type("duration", read_duration_or_0)
COUNT = _Type("n", read_number)
PORT = _Type("port", partial(read_number, most=65535))
SIGNAL = _Type("signal", read_signal)
TOKEN = _Type("token", partial(read_number, most=2**63 - 1))


def holds_secret(param: click.Parameter, value: Any) -> bool:
    """Tell whether there is a secret in the value that a parameter was given."""
    if not isinstance(param.type, _Type):
        return False
    each = value if isinstance(param, click.Option) and param.multiple else [value]
    return any(map(param.type.is_secret, each))


def own_name() -> str:
    """Return this machine's host name as a service id. Raises ConfigError."""
    name = socket.gethostname()
    try:
        if name.partition(".")[0] == "localhost":
            raise ValueError("is what every machine may be called")
        return read_name(name)
    except ValueError as error:
        raise ConfigError(
            f"the host name {quoted(name)} {error}: set --service-id"
        ) from None

"""The options on what is published of a node beside its state: host, port, info."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service_monitor.cli import options, values
from service_monitor.cli.options import gathered, option


@dataclass(frozen=True)
class Advertising:
    """What others are told of this node."""

    host: str | None = None
    """The host as the operator has it; None: it has to be found out."""
    port: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold, by keys of the operator's."""


def advertising_of(
    host: str | None, advertise_port: int | None, info: tuple[Mapping[str, Any], ...]
) -> Advertising:
    """Make one mapping of all --info; of two with one key the later counts."""
    merged = {key: value for part in info for key, value in part.items()}
    return Advertising(host, advertise_port, merged)


advertising_options = gathered(
    "advertising",
    advertising_of,
    options.host(
        "The host to tell others.",
        show_default="the monitor URL's, or if others cannot use it the address that "
        "reaches the store",
    ),
    option(
        "--advertise-port",
        type=values.PORT,
        help="The port to tell others beside the host; so several nodes may be on one "
        "host.",
    ),
    option(
        "--info",
        "--service-info",
        "info",
        type=values.INFO_TYPE,
        multiple=True,
        help="KEY=VALUE, or a JSON object, to publish beside the state. May be "
        "repeated; its variable takes a line for each.",
    ),
)

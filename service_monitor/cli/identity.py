"""The options on which node this is: its label and its service id."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.cli import options, values
from service_monitor.cli.options import gathered, option


@dataclass(frozen=True)
class Identity:
    """A node, as the store knows it."""

    label: str
    """The cluster's name."""
    service_id: str
    """The node's name, its own in the label."""


def identity_of(label: str, service_id: str | None) -> Identity:
    """Return the node named, or the one that has this machine's host name.

    Raises `ConfigError` where that is no name for a node.
    """
    return Identity(label, service_id or values.own_name())


identity_options = gathered(
    "identity",
    identity_of,
    options.label,
    option(
        "--service-id",
        type=values.NAME_TYPE,
        show_default="the host name",
        help="This node's name, its own in the label.",
    ),
)

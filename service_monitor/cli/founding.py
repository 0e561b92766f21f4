"""Who founds the cluster: what `run`, `watch` and `acquire-lease` are told of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import click

from service_monitor.cli import values
from service_monitor.cli.options import gathered, option
from service_monitor.cli.probing import Probing
from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import MonitoredURL
from service_monitor.stores.base import Store

if TYPE_CHECKING:
    from service_monitor.node.founded import Founded
    from service_monitor.recipes.publisher import Service

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundingChoice:
    """Who may found, and what is asked whether that is done."""

    found: Literal["empty", "once"]
    settled_url: MonitoredURL | None = None

    def __post_init__(self) -> None:
        if self.settled_url is None:
            return
        if self.found != "once":
            raise ConfigError("--settled-url is of use with --found=once alone")
        if self.settled_url.scheme == "tcp":
            raise ConfigError(
                "--settled-url needs http(s): a port that accepts connections says "
                "nothing of the cluster"
            )

    def watched(
        self, store: Store, service: Service, probing: Probing, bounds: Bounds
    ) -> Founded:
        """Return what finds out beside the probes whether the cluster is founded.

        Logs that up is all the proof there is, where no URL is given.
        """
        from service_monitor.node.founded import AskedOnce, NotAsked
        from service_monitor.node.probe import new_probe

        if self.found != "once":
            return NotAsked()
        if self.settled_url is None:
            log.warning(
                "--found=once without --settled-url: that it is up is taken for having "
                "founded. A node that answers, but is in no cluster, passes for a "
                "founder then"
            )
            return AskedOnce(store, service, None)
        target = replace(probing.target, url=self.settled_url)
        return AskedOnce(store, service, new_probe(target, bounds))


found_option = option(
    "--found",
    type=click.Choice(["empty", "once"]),
    default="empty",
    help="Who founds the cluster: whoever finds nobody up; or one node, once, whoever "
    "is up later.",
)
founding_options = gathered(
    "founding",
    FoundingChoice,
    found_option,
    option(
        "--settled-url",
        type=values.URL_TYPE,
        help="With --found=once: http(s)://... that answers with 2xx once the cluster "
        "is founded. Asked as --monitor-url is, until it does.",
    ),
)

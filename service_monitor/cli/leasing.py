"""The options on which lease is asked for, of `acquire-lease` and `run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service_monitor.cli import values
from service_monitor.cli.identity import Identity
from service_monitor.cli.options import gathered, option
from service_monitor.errors import ConfigError

if TYPE_CHECKING:
    from service_monitor.recipes.lease import Request


@dataclass(frozen=True)
class Leasing:
    """How long a start may take, and how many at a time; times in seconds."""

    lease_timeout: float
    """How long the lease lasts at the most."""
    acquire_timeout: float
    """How long the turn is waited for."""
    slots: int
    """How many nodes may start at a time."""

    def __post_init__(self) -> None:
        if self.lease_timeout < 1:
            raise ConfigError(
                "--lease-timeout is too short: no service is up within 1 s"
            )

    def request(
        self,
        identity: Identity,
        host: str,
        *,
        stays: bool = False,
        known: bool = True,
        published: bool,
        found: Literal["empty", "once"] = "empty",
    ) -> Request:
        """Return what is asked of the store, once the host is known."""
        from service_monitor.recipes.lease import Request

        return Request(
            identity.label,
            identity.service_id,
            host,
            self.lease_timeout,
            self.slots,
            stays=stays,
            known=known,
            published=published,
            found=found,
        )


leasing_options = gathered(
    "leasing",
    Leasing,
    option(
        "--lease-timeout",
        type=values.DURATION,
        default="240s",
        help="How long the service may take to be up; then the next node may start.",
    ),
    option(
        "--acquire-timeout",
        type=values.DURATION,
        default="360s",
        help="How long to wait for the turn.",
    ),
    option(
        "--slots",
        type=values.COUNT,
        default=1,
        help="How many nodes may start at a time. Where nodes differ, the smallest "
        "counts.",
    ),
)

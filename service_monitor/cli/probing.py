"""The options on what `watch` and `run` probe, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service_monitor.cli import values
from service_monitor.cli.options import gathered, option
from service_monitor.errors import ConfigError
from service_monitor.node.monitored import MonitoredURL
from service_monitor.recipes.timings import USUAL_TTL
from service_monitor.timing import format_duration

if TYPE_CHECKING:
    from service_monitor.node.probe import Target
    from service_monitor.node.watcher import Rhythm


@dataclass(frozen=True)
class Probing:
    """What to probe and how often; all times in seconds."""

    url: MonitoredURL
    interval: float
    timeout: float
    """For one probe, everything included; no longer than the interval."""
    rise: int
    """Successes in a row to be up."""
    fall: int
    """Failures in a row to be down."""
    ttl: float
    """How long the published state outlives a killed process."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets
    ca: str | None = None
    insecure: bool = False

    @property
    def unchecked(self) -> MonitoredURL | None:
        """Return the URL if the certificate of its service is not to be checked."""
        return self.url if self.insecure else None

    @property
    def target(self) -> Target:
        """Return what one probe asks."""
        from service_monitor.node.probe import Target

        return Target(self.url, self.timeout, self.headers, self.ca, self.insecure)

    @property
    def rhythm(self) -> Rhythm:
        """Return how often to ask, and how many answers to believe."""
        from service_monitor.node.watcher import Rhythm

        tcp = self.url.scheme == "tcp"
        return Rhythm(self.interval, self.rise, self.fall, sparing=tcp)


def probing_of(
    monitor_url: MonitoredURL,
    interval: float,
    timeout: float | None,
    rise: int,
    fall: int,
    ttl: float | None,
    header: tuple[tuple[str, str], ...],
    ca: str | None,
    insecure: bool,
) -> Probing:
    """Fill in the defaults. Raises `ConfigError` for what does not go together."""
    timeout, ttl = checked_rhythm(interval, timeout, ttl)
    if ca and insecure:
        raise ConfigError("--ca and --insecure contradict each other")
    headers = dict(header)
    return Probing(
        monitor_url, interval, timeout, rise, fall, ttl, headers, ca, insecure
    )


def checked_rhythm(
    interval: float, timeout: float | None, ttl: float | None
) -> tuple[float, float]:
    """Return timeout and ttl with their defaults, in seconds.

    Raises `ConfigError` where probes would overlap or the record would lapse between
    two of them.
    """
    timeout = timeout or min(3.0, interval)
    if timeout > interval:
        raise ConfigError(
            f"--timeout {format_duration(timeout)} is longer than --interval "
            f"{format_duration(interval)}: probes would overlap; lower --timeout"
        )
    least = max(3.0, interval + timeout)
    ttl = ttl or max(USUAL_TTL, least)
    if ttl < least:
        raise ConfigError(
            f"--ttl {format_duration(ttl)} is too short to be kept: raise it to "
            f"{format_duration(least)}, --interval plus --timeout and 3 s at the least"
        )
    return timeout, ttl


probing_options = gathered(
    "probing",
    probing_of,
    option(
        "--monitor-url",
        variable="URL",
        also="MONITOR_URL",
        required=True,
        type=values.URL_TYPE,
        help="What to probe: http(s)://[USER:PASSWORD@]HOST[:PORT]/PATH is up on a "
        "2xx, tcp://HOST:PORT if it accepts connections and keeps them.",
    ),
    option(
        "--interval",
        type=values.DURATION,
        default="5s",
        help="From probe to probe; 250 ms while this service holds the startup lease, "
        "1 s with tcp:// once it connects.",
    ),
    option(
        "--timeout",
        variable="PROBE_TIMEOUT",
        formerly="TIMEOUT",
        type=values.DURATION,
        show_default="3s, or --interval if that is less",
        help="For one probe, everything included.",
    ),
    option("--rise", type=values.COUNT, default=1, help="Successes in a row to be up."),
    option(
        "--fall", type=values.COUNT, default=2, help="Failures in a row to be down."
    ),
    option(
        "--ttl",
        type=values.DURATION,
        show_default="15s, or --interval plus --timeout if that is more",
        help="How long its record outlives a killed watch.",
    ),
    option(
        "--header",
        type=values.HEADER_TYPE,
        multiple=True,
        help="'Name: value' to send with each probe. May be repeated; its variable "
        "takes a line for each.",
    ),
    option(
        "--ca",
        type=values.CA_TYPE,
        help="Check an https service's certificate against this PEM bundle.",
    ),
    option(
        "--insecure", is_flag=True, help="Do not check an https service's certificate."
    ),
)

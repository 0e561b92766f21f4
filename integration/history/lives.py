"""What a run is made of, drawn from its seed before anything happens.

Each node's lives (what it does, what befalls it, and after how long) and the faults of
the store. The seed does not fix how the processes interleave.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from integration.history.relations import Rules

HANG = 60.0  # seconds after which a command counts as hung, its queue apart
PAUSES = (0.7, 1.1, 2.0)  # of the ttl that the pause is about
LULLS = (1.0, 4.0, 15.0, 30.0)  # seconds between faults of the store, half to all of it
BOUTS = (0.5, 2.0, 6.0)  # seconds that one lasts, and what its mending takes
STOPS = (
    *("create:before", "create:after", "list:after", "update:before"),
    *("update:held", "update:after"),
)
IN_A_TRANSACTION = "_live:after"  # of SQLite: nobody else can write then


@dataclass(frozen=True)
class Settings:
    """How a run is set up; seconds. `calm` is the share of lives without a fault."""

    store: str
    labels: int = 1
    nodes: int = 6
    slots: int = 1
    seed: int = 0
    calm: float = 0.7
    waiter_ttl: float = 3.0
    lease_timeouts: tuple[int, ...] = (2, 3)
    host_ttl: float = 4.0
    probe_timeout: float = 2.0
    boot: tuple[float, float] = (0.0, 0.15)
    up: tuple[float, float] = (0.0, 0.3)
    bug: str | None = None
    fates: tuple[str, ...] = ()  # only these, if any
    stops: tuple[str, ...] = STOPS
    observed: str = ""  # the URL past the proxies, if there are any

    def rules(self) -> Rules:
        rules = Rules(
            slots=self.slots, waiter_ttl=self.waiter_ttl, host_ttl=self.host_ttl
        )
        if self.store.startswith("dynamodb"):
            # docs/timing.md: its clock shows seconds, and who is behind looks seldom.
            return replace(rules, takeover=3.0, wakeup=3.0)
        return rules

    @property
    def patience(self) -> float:
        """Return the seconds after which a command counts as hung."""
        return HANG + self.nodes * max(self.lease_timeouts)


# What may befall a node, and how often relative to the others.
FATES: Mapping[str, float] = {
    "kill-waiter": 2,
    "term-waiter": 3,
    "int-waiter": 1,
    "pause-waiter": 2,
    "stop-waiter": 3,
    "die-booting": 1,
    "crash-loop": 2,
    "release-by-hand": 2,
    "pause-watch": 2,
    "stop-watch": 2,
    "kill-watch": 2,
    "term-watch": 1,
    "int-watch": 1,
    "slow-probe": 2,
    "slow-boot": 1,
}


@dataclass(frozen=True)
class Life:
    """What a node does from one start to the next, and what befalls it."""

    rest: float
    boot: float
    up: float
    lease_timeout: int
    fate: str
    delay: float  # until the fault strikes
    lasting: float  # how long a pause lasts
    ttls: float  # and that in units of the ttl it is about, roughly
    where: str  # at which store call the process stops itself
    away: float  # after a death
    keeps_watch: bool


def lives(settings: Settings, label: int, node: int) -> Iterator[Life]:
    """Draw a node's lives; the same for the same seed."""
    chance = random.Random(f"{settings.seed}/{label}/{node}")
    fates = {f: w for f, w in FATES.items() if f in (settings.fates or FATES)}
    while True:
        fate = ""
        if chance.random() >= settings.calm:
            (fate,) = chance.choices(list(fates), list(fates.values()))
        lease_timeout = chance.choice(settings.lease_timeouts)
        ttl = settings.waiter_ttl
        if fate in ("pause-watch", "stop-watch"):
            ttl = lease_timeout
        ttls = chance.choice(PAUSES)
        yield Life(
            rest=chance.uniform(0, 0.1),
            boot=chance.uniform(*settings.boot),
            up=chance.uniform(*settings.up),
            lease_timeout=lease_timeout,
            fate=fate,
            delay=chance.choice((0.0, 0.02, 0.1, 0.4)) * chance.random(),
            lasting=ttl * ttls * chance.uniform(0.95, 1.05),
            ttls=ttls,
            where=chance.choice(settings.stops),
            away=chance.choice((0.0, 2.0)) * max(lease_timeout, settings.waiter_ttl),
            keeps_watch=chance.random() < 0.5,
        )


def strikes(seed: int, kinds: Sequence[str]) -> Iterator[tuple[float, str, float]]:
    """Draw the faults of a store: seconds before it, its kind, and how long it lasts.

    Each kind comes as often as any other.
    """
    chance = random.Random(f"{seed}/store")
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            lull = chance.choice(LULLS) * chance.uniform(0.5, 1)
            yield lull, kind, chance.choice(BOUTS)

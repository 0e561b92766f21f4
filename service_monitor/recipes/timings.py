"""All pauses and lives that no option sets, in seconds; tests make shorter ones."""

from __future__ import annotations

from dataclasses import dataclass

USUAL_TTL = 15.0
"""A registration lives so long without a keepalive, where --ttl does not say it."""


@dataclass(frozen=True)
class Timings:
    """Seconds that no option sets: how long to live, and between looks and tries."""

    waiter_ttl: float = 15.0
    """A waiting ticket lives so long without a keepalive. A dead waiter blocks the
    queue no longer."""
    look_next: float = 1.0
    """Between two looks at the queue if no change wakes the waiter: for the next in
    line, as many as there are slots."""
    look_later: float = 5.0
    """The same, for those behind them."""
    queue_pace: float = 0.02
    """Between two looks at the queue at the least: waiting for a change may end at
    once. It is short as it may delay a hand-over."""
    first_retry: float = 0.1
    """Before the second try to queue during an outage; it doubles with each further
    one, with jitter."""
    longest_retry: float = 2.0
    """What that grows to at the most."""
    last_look: float = 1.0
    """For one more look past --acquire-timeout, so that the error tells the truth."""
    sign_of_life: float = 18.0
    """For a sign of life of others that are up. A dead one's record has lapsed by then,
    also by a clock that shows whole seconds."""
    look_for_sign: float = 0.5
    """Between two looks for that."""
    look_hosts: float = 5.0
    """Between two looks at registrations that others are to change, if no change wakes
    us."""
    pace: float = 0.05
    """Between two looks, or two rounds of `watch`, at the least, whatever wakes us."""
    store_retry: float = 1.0
    """Between two tries during an outage, of all but waiters in the queue."""
    startup_interval: float = 0.25
    """Between two probes while this service id holds the startup lease."""
    connected: float = 1.0
    """The same with tcp://, from the first success on: some servers count connections
    without a word, and lock us out."""


TIMINGS = Timings()
"""What the commands use."""

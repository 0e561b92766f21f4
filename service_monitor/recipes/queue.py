"""Read the queue from one snapshot: places, holders, slots; decides nothing.

No I/O.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from service_monitor.records import Record, Snapshot, Ticket

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A ticket and the record that holds it."""

    record: Record
    ticket: Ticket


@dataclass(frozen=True)
class Queue:
    """The live tickets of one label, in the order in which they were created."""

    entries: tuple[Entry, ...]
    strangers: tuple[str, ...] = ()
    """Keys of records that are no tickets."""

    @property
    def holders(self) -> list[Entry]:
        """Return the tickets that are the lease, in the order of the queue."""
        return [entry for entry in self.entries if entry.ticket.held]

    @property
    def waiters(self) -> list[Entry]:
        """Return the tickets that wait, in the order of the queue."""
        return [entry for entry in self.entries if not entry.ticket.held]

    @property
    def slots(self) -> int:
        """Return how many may hold: where tickets differ, the smallest counts."""
        return min((entry.ticket.slots for entry in self.entries), default=1)

    @property
    def slots_differ(self) -> bool:
        """Tell whether nodes were started with different --slots."""
        return len({entry.ticket.slots for entry in self.entries}) > 1

    def find(self, key: str) -> tuple[int, Entry] | None:
        """Return the ticket under `key` and its index among all live ones, if any."""
        for index, entry in enumerate(self.entries):
            if entry.record.key == key:
                return index, entry
        return None

    def position(self, key: str) -> int:
        """Return a waiter's place among the waiters: 1 is the next in line.

        Raises ValueError where nobody waits under `key`.
        """
        return 1 + [entry.record.key for entry in self.waiters].index(key)


def read_queue(snapshot: Snapshot) -> Queue:
    """Read the tickets of a snapshot, and set the keys of other records apart."""
    entries, strangers = [], []
    for record in snapshot.records:
        ticket = Ticket.from_json(record.value)
        if ticket is None:
            strangers.append(record.key)
        else:
            entries.append(Entry(record, ticket))
    return Queue(tuple(entries), tuple(strangers))


def warn_of_strangers(queue: Queue, warned: set[str]) -> None:
    """Warn of keys that hold no ticket, but for those in `warned`: of the last look.

    `warned` becomes what this look found.
    """
    for key in queue.strangers:
        if key not in warned:
            log.warning("%s is not a ticket: left aside", key)
    warned.clear()
    warned.update(queue.strangers)


def describe(queue: Queue, key: str) -> str:
    """Say where the waiter under `key` stands, who holds, and who comes before it."""
    position = queue.position(key)
    holders = [f"{e.ticket.service_id} ({e.ticket.host})" for e in queue.holders]
    text = f"position {position}, " + (
        f"held by {', '.join(holders)}" if holders else "free but not taken yet"
    )
    if ahead := [e.ticket.service_id for e in queue.waiters[: position - 1]]:
        text += f", after {', '.join(ahead)}"
    return text

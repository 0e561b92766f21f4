"""What a record shows of a service id that lives: registered, or in the queue."""

from __future__ import annotations

from dataclasses import dataclass

from service_monitor.records import Record, Registration, Ticket, key_parts


@dataclass(frozen=True)
class Life:
    """A sign that a service id lives, and where.

    `registered` is the state it is registered in, "?" where that cannot be read, and
    None where it is in the queue: then it `holds` the startup lease or waits for it.
    """

    service_id: str
    host: str
    registered: str | None
    holds: bool


def sign_of_life(record: Record) -> Life | None:
    """Return what the record shows; None for one that shows no life.

    Any record that would end by itself shows it, also one that cannot be read. No I/O.
    """
    _, kind, service_id = key_parts(record.key)
    if kind == "hosts":
        registered = Registration.from_json(record.value)
        state = registered.state if registered else "?"
        return Life(service_id, _host(registered), state, holds=False)
    if kind == "lease":
        ticket = Ticket.from_json(record.value)
        held = ticket is not None and ticket.held
        return Life(service_id, _host(ticket), None, holds=held)
    return None


def _host(record: Registration | Ticket | None) -> str:
    return record.host if record else "an unknown host"

"""What the store says now, for people and for scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service_monitor.net.addresses import is_host, with_port
from service_monitor.recipes.member import Event
from service_monitor.recipes.members import Remembered, read_members, warn_of_foreign
from service_monitor.recipes.queue import Entry, Queue, read_queue, warn_of_strangers
from service_monitor.records import Record, Snapshot, key_parts, label_prefix
from service_monitor.stores.base import Store
from service_monitor.text import printable
from service_monitor.timing import format_duration

Row = dict[str, Any]

LONGEST = 300
"""Characters of a cell: what other tools wrote must not fill the memory either."""
MOST_SECONDS = 1e10
"""What took longer is no duration, but a foreign record's number."""


def gather(store: Store, label: str | None) -> dict[str, list[Row]]:
    """Return the services and leases of one label, or with None of all labels.

    A service is one that is registered, or a member that is gone. `age` is in seconds
    by the wall clocks of two machines, so it is for people; `seconds_left` is by the
    store's clock. Makes one call to the store, and one more for each ticket. Raises
    `StoreError`.
    """
    snapshot = store.list(label_prefix(label) if label else "")
    members = read_members(snapshot.records)
    warn_of_foreign(members)
    tickets: dict[str, list[Record]] = {}
    for record in snapshot.records:
        name, kind, _ = key_parts(record.key)
        if kind == "lease":
            tickets.setdefault(name, []).append(record)
    leases: list[Row] = []
    for name in sorted(tickets):
        queue = read_queue(Snapshot(tuple(tickets[name])))
        warn_of_strangers(queue, set())
        entries = queue.holders + queue.waiters
        leases += [_lease_row(store, name, queue, entry) for entry in entries]
    return {"services": [*map(_service_row, members.entries)], "leases": leases}


def _service_row(service: Remembered) -> Row:
    fields = "label", "service_id", "host", "port", "state", "since", "reason", "info"
    row = {name: getattr(service, name) for name in fields}
    row["last_state"] = service.last_state
    row["rank"] = service.member.rank if service.member else None
    row["events"] = [*map(_event_row, service.events)]
    return row


def _event_row(event: Event) -> Row:
    took = event.seconds
    seconds = took if took is not None and 0 <= took < MOST_SECONDS else None
    row = {"at": event.at, "event": event.event, "reason": event.reason}
    return row | {"seconds": seconds}


def _lease_row(store: Store, label: str, queue: Queue, entry: Entry) -> Row:
    ticket, record = entry.ticket, entry.record
    return {
        "label": label,
        "service_id": ticket.service_id,
        "host": ticket.host if is_host(ticket.host) else "?",
        "state": ticket.state,
        "position": 0 if ticket.held else queue.position(record.key),
        "since": ticket.since,
        "age": _age(ticket.since),
        "seconds_left": round(store.time_left(record), 1),
        "token": record.version if ticket.held else None,
        "slots": ticket.slots,
    }


def _age(since: str) -> float | None:
    """Return the seconds since then by this wall clock; None for what is no time."""
    try:
        then = datetime.fromisoformat(since)
    except ValueError:
        return None
    if then.tzinfo is None:
        return None
    return round(max(0.0, (datetime.now(UTC) - then).total_seconds()), 1)


def render(status: dict[str, list[Row]], *, events: bool = False) -> str:
    """Lay the status out as two tables, with `events` as three."""
    services = [
        [
            r["label"],
            r["service_id"],
            with_port(r["host"], r.get("port")),
            r["state"],
            _since(r),
            r["reason"],
        ]
        for r in status["services"]
    ]
    leases = [
        [
            r["label"],
            "held" if r["state"] == "held" else f"position {r['position']}",
            r["service_id"],
            r["host"],
            "?" if r["age"] is None else format_duration(r["age"]),
            format_duration(r["seconds_left"]),
            "" if r["token"] is None else str(r["token"]),
        ]
        for r in status["leases"]
    ]
    heads = (
        ["LABEL", "SERVICE", "HOST", "STATE", "SINCE", "REASON"],
        ["LABEL", "LEASE", "SERVICE", "HOST", "AGE", "LEFT", "TOKEN"],
    )
    tables = [
        _table(heads[0], services) if services else "no service is registered",
        _table(heads[1], leases) if leases else "no lease is held or waited for",
    ]
    return "\n\n".join([*tables, *([_event_table(status)] if events else [])])


def _since(service: Row) -> str:
    """Say since when it is so: when one died nobody knows, only what it was before."""
    died = service["state"] == "gone" and service["last_state"] != "stopped"
    return f"after {service['since']}" if died else str(service["since"])


def _event_table(status: dict[str, list[Row]]) -> str:
    """Lay out what happened to each service, the newest last."""
    rows = [
        [
            service["label"],
            service["service_id"],
            event["at"],
            event["event"],
            "" if event["seconds"] is None else format_duration(event["seconds"]),
            event["reason"],
        ]
        for service in status["services"]
        for event in service["events"]
    ]
    head = ["LABEL", "SERVICE", "TIME", "EVENT", "TOOK", "REASON"]
    return _table(head, rows) if rows else "no event is remembered"


def _table(head: list[str], rows: list[list[str]]) -> str:
    # What other tools wrote must not move the cursor.
    cells = [head] + [[printable(cell, LONGEST) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)

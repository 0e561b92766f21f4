"""What the store says now, for people and for scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service_monitor.net.addresses import is_host, with_port
from service_monitor.recipes.discovery import natural, registrations
from service_monitor.recipes.queue import Entry, Queue, read_queue, warn_of_strangers
from service_monitor.records import Record, Snapshot, key_parts
from service_monitor.stores.base import Store
from service_monitor.text import printable
from service_monitor.timing import format_duration

Row = dict[str, Any]


def gather(store: Store, label: str | None) -> dict[str, list[Row]]:
    """Return the services and leases of one label, or with None of all labels.

    `age` is in seconds by the wall clocks of two machines, so it is for people;
    `seconds_left` is by the store's clock. Makes one call to the store, and one more
    for each ticket. Raises `StoreError`.
    """
    snapshot = store.list(f"{label.lower()}/" if label else "")
    services: list[Row] = []
    registered: list[Record] = []
    tickets: dict[str, list[Record]] = {}
    for record in snapshot.records:
        name, kind, _ = key_parts(record.key)
        if kind == "lease":
            tickets.setdefault(name, []).append(record)
        elif kind == "hosts":
            registered.append(record)
    for record, found in registrations(registered):
        fields = "service_id", "host", "port", "state", "since", "reason", "info"
        name, _, _ = key_parts(record.key)
        services.append({"label": name} | {f: getattr(found, f) for f in fields})
    services.sort(key=lambda row: (row["label"], natural(row["service_id"])))
    leases: list[Row] = []
    for name in sorted(tickets):
        queue = read_queue(Snapshot(tuple(tickets[name])))
        warn_of_strangers(queue, set())
        entries = queue.holders + queue.waiters
        leases += [_lease_row(store, name, queue, entry) for entry in entries]
    return {"services": services, "leases": leases}


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


def render(status: dict[str, list[Row]]) -> str:
    """Lay the status out as two tables."""
    services = [
        [
            r["label"],
            r["service_id"],
            with_port(r["host"], r.get("port")),
            r["state"],
            r["since"],
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
    return "\n\n".join(tables)


def _table(head: list[str], rows: list[list[str]]) -> str:
    # What other tools wrote must not move the cursor.
    cells = [head] + [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)

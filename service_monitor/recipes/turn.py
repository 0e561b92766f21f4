"""Whether it is a ticket's turn, by its place, and what to wait for if not.

No I/O.
"""

from __future__ import annotations

from service_monitor.recipes.founder import founder_key
from service_monitor.recipes.founding import Decision
from service_monitor.recipes.lease import Request, Waiting
from service_monitor.recipes.queue import Queue
from service_monitor.recipes.timings import Timings
from service_monitor.records import Snapshot


def comes_after(queue: Queue, index: int, *, ahead: bool) -> int:
    """Return how many there are before the ticket at `index`: its turn is below slots.

    Who claimed to found goes `ahead` of all that wait for it; so holders may come later
    in the queue than a waiter, and count for it nevertheless. A waiter of --found=empty
    or of an older release does not wait for it, and keeps its place before it.
    """
    others = [entry for at, entry in enumerate(queue.entries) if at != index]
    holders = sum(entry.ticket.held for entry in others)
    if not ahead:
        return max(index, holders)
    before = (entry.ticket for entry in queue.entries[:index])
    return holders + sum(not each.held and each.found != "once" for each in before)


def behind(
    queue: Queue,
    index: int,
    snapshot: Snapshot,
    timings: Timings,
    *,
    ahead: bool = False,
) -> Waiting:
    """Return what the ticket at `index` waits for: those before it."""
    position = queue.position(queue.entries[index].record.key)
    is_next = index <= queue.slots
    # With several slots the next in line waits for the first of the holders to go;
    # the one behind it becomes the next also when that one is granted the lease.
    several = queue.slots > 1
    # But the one ahead may be paused or dead: so all look often whom the next
    # `slots` releases may concern.
    is_near = index < 2 * queue.slots
    mine = queue.entries[index].record.key
    prefix = mine.rpartition("/")[0] + "/"
    overtaken = index < queue.slots  # by who founds
    any_of_them = ahead or overtaken or (several and is_next)
    return Waiting(
        queue,
        position,
        snapshot,
        obstacle=prefix if any_of_them else queue.entries[index - 1].record.key,
        gone=ahead or is_next or not several,
        look_within=timings.look_next if ahead or is_near else timings.look_later,
    )


def gated(
    queue: Queue, request: Request, decision: Decision, timings: Timings
) -> Waiting:
    """Return what a ticket waits for whose place would do: that another one founds."""
    found = queue.find(request.key)
    waits = found is not None and not found[1].ticket.held
    return Waiting(
        queue,
        queue.position(request.key) if waits else 0,
        decision.snapshot,
        obstacle=founder_key(request.label),
        gone=False,
        look_within=timings.look_next,
        gate=decision.why,
    )

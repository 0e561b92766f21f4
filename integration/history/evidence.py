"""What the rules ask of a history: who freed a lease, who was up, who waited."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from integration.history.relations import History, Process, Stay


def explicit(history: History, stay: Stay) -> bool:
    """Tell whether a lease surely was deleted, and not just out of time.

    On etcd v3 its time runs from the keepalive before the grant, which may be slow.
    """
    assert stay.end
    if stay.end.expired is not None:
        return not stay.end.expired
    first = stay
    while first.before and first.before.state == "held":
        first = first.before
    if not first.change.seen:
        return False
    ends = first.change.after + first.lease_timeout
    if owner := history.owner(first):
        # Who was killed tells no deadline.
        began = owner.begin.at + first.lease_timeout
        ends = min(ends, owner.told("deadline") or began)
    return stay.end.at < ends - 0.05


def releasers(history: History, stay: Stay) -> tuple[list[Process], list[Process]]:
    """Find who may have deleted a lease at its end: commands, and watches."""
    assert stay.end
    change, end = stay.change, stay.end
    by_hand, by_watch = [], []
    probes = history.probes.get((change.label, change.name), ())
    succeeded = any(
        began >= change.after and answered <= end.at for began, answered in probes
    )
    for process in history.by_node[change.label, change.name]:
        # A request of a process just killed may still arrive.
        if process.begin.at > end.at or process.end < end.after - 1.0:
            continue
        if process.role == "watch" and succeeded:
            by_watch.append(process)
        if process.role == "release-lease":
            by_hand.append(process)
        nonces = process.told("nonces")
        is_own = nonces is None or stay.nonce in nonces
        kept = process.code == 0 and process.told("token") == change.version
        if process.role == "acquire-lease" and is_own and not kept:
            by_hand.append(process)
    return by_hand, by_watch


def extended(history: History, stay: Stay) -> Stay:
    """Find the write that this lease's time is counted from.

    Asking again extends it, but not while somebody waited since before the asking.
    """
    while stay.before and stay.before.state == "held":
        owner = history.owner(stay)
        if not owner or not _somebody_waited(history, stay, owner):
            return stay
        stay = stay.before
    return stay


def _somebody_waited(history: History, stay: Stay, asking: Process) -> bool:
    for (label, kind, name), stays in history.by_key.items():
        if label != stay.change.label or kind != "lease" or name == stay.change.name:
            continue
        other = _at(stays, stay.index)
        if other and other.state == "waiting" and other.change.at < asking.begin.at:
            return True
    return False


def _at(stays: Sequence[Stay], index: int) -> Stay | None:
    """Find the stay of a key that was live when the change at `index` was made."""
    n = bisect_right(stays, index, key=lambda stay: stay.index) - 1
    if n < 0:
        return None
    stay = stays[n]
    return stay if stay.ended is None or stay.ended > index else None


def up_at(history: History, label: str, name: str, index: int | None) -> bool:
    assert index is not None
    stay = _at(history.by_key[label, "hosts", name], index)
    return stay is not None and stay.state == "up"


def stays_up(
    history: History, stays: Sequence[Stay], grant: Stay, until: float
) -> bool:
    """Tell whether a service was up at a grant and surely for so long."""
    stay = _at(stays, grant.index)
    if stay is None:
        return False
    first = bisect_left(stays, stay.index, key=lambda stay: stay.index)
    for n in range(first, len(stays)):
        current = stays[n]
        if current.state != "up":
            return False
        if current.end is None or current.end.after >= until:
            return True
        later = stays[n + 1 : n + 2]
        if not later or later[0].index != current.ended:
            return False
    return False


def may_be_up(stays: Sequence[Stay], process: Process) -> bool:
    return any(
        stay.state == "up"
        and stay.change.after <= process.end
        and (stay.end is None or stay.end.at >= process.begin.at)
        for stay in stays
    )

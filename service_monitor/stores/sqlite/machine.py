"""The clock and the boot that all processes of one machine share, containers included.

CLOCK_BOOTTIME is the kernel's, and only a time namespace shifts it (`unshare -T`, a
restored container): by an offset that the kernel tells, and that is taken out here. The
boot id is the kernel's too, but systemd-nspawn and LXC bind a file of their own over
it: such a one names a container, and says nothing of the machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from service_monitor.errors import LocalLack, describe
from service_monitor.timing import now

PROC = Path("/proc")

_INITIAL = "time:[4026531834]"
"""The time namespace that a machine boots with: PROC_TIME_INIT_INO of the kernel."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADVICE = "a SQLite store needs it, an etcd or DynamoDB store does not"


def clock(proc: Path = PROC) -> float:
    """Return seconds on the machine's CLOCK_BOOTTIME, the same in every container.

    Looks each time: a process that is restored elsewhere gets another offset. Raises
    `LocalLack` where the kernel does not tell.
    """
    return now() - _offset(proc)


def _offset(proc: Path) -> float:
    own = proc / "self/ns/time"
    try:
        namespace = os.readlink(own)
    except FileNotFoundError:
        if not os.path.lexists(proc / "self/ns"):
            raise LocalLack(f"cannot read {own}: no /proc here: {_ADVICE}") from None
        return 0.0  # a kernel without time namespaces
    except OSError as error:
        raise LocalLack(f"cannot read {own}: {describe(error)}: {_ADVICE}") from None
    if namespace == _INITIAL:
        return 0.0
    # The offsets are those of the namespace that children are put into.
    listed = proc / "self/timens_offsets"
    try:
        if os.readlink(proc / "self/ns/time_for_children") == namespace:
            return _boottime(listed.read_text())
    except (OSError, ValueError) as error:
        raise LocalLack(
            f"cannot tell the machine's clock in this time namespace: {listed}: "
            f"{describe(error)}: {_ADVICE}"
        ) from None
    raise LocalLack(
        "cannot tell the machine's clock: this process is in another time namespace "
        f"than its children: {_ADVICE}"
    )


def _boottime(offsets: str) -> float:
    for line in offsets.splitlines():
        name, seconds, nanoseconds = line.split()
        if name in ("boottime", "7"):  # by number until Linux 5.7
            return int(seconds) + int(nanoseconds) / 1e9
    raise ValueError("no line for boottime")


def boot_id(proc: Path = PROC) -> str:
    """Return what names this boot here, empty where nothing does."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except (OSError, UnicodeDecodeError):  # hidden, as ProcSubset=pid of a unit does
        return ""


def is_genuine(boot: str, proc: Path = PROC) -> bool:
    """Tell whether that boot id is the kernel's, and not one given to a container.

    What is bound over it is on another file system, or changes, or is no UUID.
    """
    try:
        over = os.stat(proc / "sys/kernel/random/boot_id").st_dev
        same = over == os.stat(proc / "self/stat").st_dev
    except OSError:
        return False
    return same and _UUID.fullmatch(boot) is not None and boot_id(proc) == boot

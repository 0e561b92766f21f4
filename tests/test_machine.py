"""The clock and the boot that all processes of a machine share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration.support.commands import Run, error_of
from service_monitor.errors import LocalLack
from service_monitor.net.calls import Bounds
from service_monitor.stores.opening import open_store
from service_monitor.stores.sqlite import machine
from service_monitor.timing import now

BOOT = "39540a82-928d-4b7e-8136-61540eba829c"
INITIAL, OTHER, THIRD = (f"time:[{n}]" for n in (4026531834, 4026532253, 4026532254))
SHIFTED = "monotonic           0         0\nboottime        86400 500000000\n"
DAY = 86400.5


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Give what is there in a machine's own time namespace."""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "self/ns/mnt").symlink_to("mnt:[4026531832]")
    (tmp_path / "self/stat").write_text("1")
    (tmp_path / "self/timens_offsets").write_text(SHIFTED)
    (tmp_path / "sys/kernel/random/boot_id").write_text(f"{BOOT}\n")
    return tmp_path


def enter(proc: Path, own: str, children: str | None = None) -> None:
    (proc / "self/ns/time").symlink_to(own)
    (proc / "self/ns/time_for_children").symlink_to(children or own)


def off(proc: Path) -> float:
    """Give by how much the clock here is ahead of the machine's."""
    return now() - machine.clock(proc)


def test_the_machines_own_namespace_has_its_clock(proc: Path) -> None:
    """The offset that waits for the children would be taken out of our own clock."""
    enter(proc, INITIAL, OTHER)
    assert off(proc) == pytest.approx(0, abs=5)


@pytest.mark.promise(1)
def test_the_offset_of_a_time_namespace_is_taken_out(proc: Path) -> None:
    """A restored container would take a held lease, and keep one for a day."""
    enter(proc, OTHER)
    assert off(proc) == pytest.approx(DAY, abs=5)
    (proc / "self/timens_offsets").write_text("1 3 0\n7 -9 500000000\n")
    assert off(proc) == pytest.approx(-8.5, abs=5)


def test_a_kernel_without_time_namespaces_has_one_clock(proc: Path) -> None:
    """SQLite would be refused on every older machine."""
    assert off(proc) == pytest.approx(0, abs=5)


def lack(proc: Path) -> str:
    with pytest.raises(LocalLack) as refused:
        machine.clock(proc)
    message = str(refused.value)
    assert message.isprintable()
    assert message.endswith("an etcd or DynamoDB store does not")
    return message


def test_a_clock_that_cannot_be_told_is_refused(proc: Path) -> None:
    """A wrong guess would be a lease for two."""
    enter(proc, OTHER, THIRD)
    assert "is in another time namespace than its children" in lack(proc)
    (proc / "self/ns/time_for_children").unlink()
    assert "in this time namespace" in lack(proc)


@pytest.mark.parametrize("offsets", [None, "", "boottime x 0", "boottime 1", "\xff"])
def test_offsets_that_cannot_be_read_are_refused(
    proc: Path, offsets: str | None
) -> None:
    """A kernel that says it in other words would be misunderstood without a word."""
    enter(proc, OTHER)
    (proc / "self/timens_offsets").unlink()
    if offsets is not None:
        (proc / "self/timens_offsets").write_text(offsets, encoding="latin-1")
    assert "timens_offsets" in lack(proc)


def test_no_proc_is_refused(tmp_path: Path) -> None:
    """It would be waited out like an outage of the store, or be a traceback."""
    assert "no /proc here" in lack(tmp_path)
    (tmp_path / "self").write_text("a file")
    assert "not a directory" in lack(tmp_path)


def test_the_command_says_what_the_machine_lacks(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An operator would look for the fault in the store, or in the output."""
    monkeypatch.setattr(machine.clock, "__defaults__", (tmp_path,))
    for argv in ["hosts"], ["acquire-lease"], ["watch", "--monitor-url=http://h:1"]:
        outcome = run(*argv, "--label=es")
        assert outcome.code == 71
        assert "no /proc here" in error_of(outcome)
    with pytest.raises(LocalLack):
        open_store(f"sqlite://{tmp_path}/s.db", Bounds())


def test_the_boot_id_of_this_machine_is_the_kernels() -> None:
    """After a reboot all nodes would wait for leases of before."""
    assert re.fullmatch("[0-9a-f-]{36}", machine.boot_id())


@pytest.mark.parametrize("text", ["", "es-1\n", BOOT.upper(), f"{BOOT}x"])
def test_what_is_no_boot_id_is_not_genuine(proc: Path, text: str) -> None:
    """A file that is bound over it would pass for the kernel's word."""
    assert machine.is_genuine(BOOT, proc)
    (proc / "sys/kernel/random/boot_id").write_text(text)
    assert not machine.is_genuine(machine.boot_id(proc), proc)


def test_a_boot_id_that_changes_is_not_genuine(proc: Path) -> None:
    """procfs's own `uuid` bound over it gives another one at each look."""
    boot = machine.boot_id(proc)
    (proc / "sys/kernel/random/boot_id").write_text(BOOT.replace("3", "4"))
    assert not machine.is_genuine(boot, proc)


def test_a_boot_id_of_another_file_system_is_not_genuine(proc: Path) -> None:
    """That is how systemd-nspawn and LXC give a container one of its own."""
    stat = proc / "self/stat"
    stat.unlink()
    stat.symlink_to("/proc/self/stat")
    assert not machine.is_genuine(machine.boot_id(proc), proc)


def test_a_hidden_boot_id_is_no_lack(proc: Path) -> None:
    """A unit with ProcSubset=pid could not use the store at all."""
    (proc / "sys/kernel/random/boot_id").unlink()
    assert machine.boot_id(proc) == ""
    assert not machine.is_genuine("", proc)

"""No wall clock is trusted: promise 7."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import service_monitor
from service_monitor import timing
from service_monitor.net.calls import Bounds
from service_monitor.recipes.contender import Contender
from service_monitor.recipes.discovery import up_hosts
from service_monitor.recipes.health import Health
from service_monitor.recipes.lease import Lease, Request, Waiting
from service_monitor.recipes.publisher import Publisher, Service
from service_monitor.recipes.release import release
from service_monitor.stores.sqlite.store import SqliteStore

PACKAGE = Path(service_monitor.__file__).parent
FOR_PEOPLE = {("timing.py", "timestamp"), ("status.py", "_age")}
FOR_A_CHECK = {("notify.py", "beat")}  # of this machine, against the same clock


class Wrong:
    """A `datetime` whose now is some hours off."""

    hours = 0

    @classmethod
    def now(cls, zone: object) -> datetime:
        return datetime.now(UTC) + timedelta(hours=cls.hours)


@pytest.mark.promise(7)
@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_wall_clock_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A host whose clock is off would overtake, or be taken for dead."""
    monkeypatch.setattr(timing, "datetime", Wrong)
    store = SqliteStore(str(tmp_path / "s.db"), Bounds())

    def step(name: str, off: int) -> Lease | Waiting:
        Wrong.hours = off
        return Contender(store, Request("es", name, f"host-{name}")).step()

    assert isinstance(step("a", 0), Lease)
    assert isinstance(step("b", hours), Waiting)
    assert isinstance(step("c", -hours), Waiting)
    publisher = Publisher(store, Service("es", "a", "host-a"), vouch=lambda: True)
    assert publisher.reconcile(Health(up=True))
    Wrong.hours = 0
    assert up_hosts(store.list("es/hosts/").records) == ["host-a"]
    release(store, "es", "a")
    assert isinstance(step("c", -hours), Waiting)
    assert isinstance(step("b", hours), Lease)
    publisher.withdraw()
    store.close()


@pytest.mark.promise(7)
def test_the_wall_clock_decides_nothing() -> None:
    """The next change would bring it back into a decision."""
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                        "datetime.now",
                        "datetime.utcnow",
                        "time.time",
                    ):
                        readers.add((path.name, function.name))
    assert readers == FOR_PEOPLE | FOR_A_CHECK

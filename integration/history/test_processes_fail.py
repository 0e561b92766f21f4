"""The product while processes die, on each store, and what a run is made of."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from integration.history.lives import Settings, lives, strikes
from integration.history.run import fire, isolated, main, report
from integration.history.sanity import sane
from integration.support.etcd import Etcd

CLEAN = 8.0  # seconds that the product has to survive here; minutes elsewhere

pytestmark = pytest.mark.timeout(400, func_only=True)


@pytest.mark.parametrize(
    ("kind", "slots"),
    [("etcd3", 1), ("etcd3", 2), ("etcd2", 1), ("sqlite", 1), ("dynamodb", 1)],
)
def test_the_product_survives_the_same(
    kind: str, slots: int, etcd: Etcd, sqlite: str, request: pytest.FixtureRequest
) -> None:
    """Else a node would start out of turn, or wait for ever, when others die."""
    url = {"etcd3": etcd.url, "etcd2": etcd.url_v2, "sqlite": sqlite}.get(kind)
    url = url or request.getfixturevalue("dynamodb").make_table()
    settings = Settings(
        isolated(url), labels=3, nodes=4, slots=slots, seed=slots, calm=0.6
    )
    outcome = fire(settings, CLEAN)
    assert not sane(outcome), report(outcome)


def test_the_seed_fixes_what_happens() -> None:
    """Else a failure under a seed could never be looked at again."""
    settings = Settings("sqlite:///unused", seed=7, calm=0.2)

    def first(seed: int, node: int) -> list[object]:
        drawn = lives(replace(settings, seed=seed), 0, node)
        return list(itertools.islice(drawn, 50))

    def struck(seed: int) -> list[tuple[float, str, float]]:
        return list(itertools.islice(strikes(seed, ["a", "b", "c"]), 30))

    assert struck(7) == struck(7)
    assert struck(7) != struck(8)
    assert {kind for _, kind, _ in struck(7)[:3]} == {"a", "b", "c"}
    assert first(7, 1) == first(7, 1)
    assert first(7, 1) != first(8, 1)
    assert first(7, 1) != first(7, 2)


def test_the_command_reports_and_draws(
    sqlite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a run of an hour would end without anything to show for it."""
    page = tmp_path / "page.html"
    options = ["--minutes", "0.05", "--seed", "3", "--store", sqlite, "--nodes", "2"]
    code = main([*options, "--report", str(page), "--keep", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "violations     0" in told
    assert "<svg" in page.read_text()
    assert (tmp_path / "events.jsonl").stat().st_size
    assert (tmp_path / "changes.jsonl").stat().st_size

"""The product while processes and the store fail at once, for a minute."""

from __future__ import annotations

import pytest

from integration.faults.etcd_cluster import obstacle
from integration.history.lives import Settings
from integration.history.run import fire, report, stage
from integration.history.sanity import sane

pytestmark = pytest.mark.timeout(400, func_only=True)


def test_a_minute_of_everything() -> None:
    """Else a node would start out of turn when processes and the store fail at once."""
    if reason := obstacle():
        pytest.skip(reason)
    with stage("etcd") as target:
        settings = Settings(
            target.url, observed=target.observed, labels=4, seed=1, calm=0.8
        )
        outcome = fire(settings, 60.0, faults=target.faults)
    assert not sane(outcome), report(outcome)
    assert outcome.faults["store"].total() > 2

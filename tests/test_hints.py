"""What an operator most likely did not mean."""

from __future__ import annotations

import pytest

from service_monitor.node.hints import with_hint
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Result

OK, REFUSED = Result(True, "200 OK"), Result(False, "connection refused")
SLOW = Result(False, "no answer within 3 s")
HINT = "--network container:NAME"


@pytest.mark.parametrize(
    ("url", "contained", "results", "hints"),
    [
        ("http://127.0.0.1:1", True, [REFUSED, REFUSED, OK, REFUSED], 1),
        ("tcp://localhost:1", True, [REFUSED], 1),
        ("http://[::1]:1/x", True, [REFUSED], 1),
        ("http://127.0.0.1:1", False, [REFUSED, REFUSED], 0),
        ("http://es-1:1", True, [REFUSED], 0),
        ("http://127.0.0.1:1", True, [OK, REFUSED], 0),
        ("http://127.0.0.1:1", True, [SLOW, REFUSED], 0),
    ],
)
def test_loopback_in_a_container_is_explained_once(
    url: str,
    contained: bool,
    results: list[Result],
    hints: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The newcomer's `watch` in a container of its own would be refused for ever, and
    nothing would say why."""
    caplog.set_level("INFO")
    answers = iter(results)
    host = read_monitored_url(url).host
    probe = with_hint(lambda: next(answers), host, contained=contained)
    assert [probe() for _ in results] == results
    assert caplog.text.count(HINT) == hints

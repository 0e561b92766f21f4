"""Options that a command gets as one value."""

from __future__ import annotations

from dataclasses import dataclass

import click
import pytest

from service_monitor.cli import values
from service_monitor.cli.options import gathered, option
from service_monitor.errors import ConfigError


@dataclass(frozen=True)
class Window:
    """What a command of these tests takes."""

    opens: float
    closes: float

    def __post_init__(self) -> None:
        if self.closes < self.opens:
            raise ConfigError("--closes is before --opens")


@click.command()
@gathered(
    "window",
    Window,
    option("--opens", type=values.DURATION, default="1s", help="First."),
    option("--closes", type=values.DURATION, required=True, help="Second."),
)
@option("--beside", default="b", help="Third.")
def command(window: Window, beside: str) -> tuple[Window, str]:
    """Return what it was given."""
    return window, beside


def invoke(*argv: str) -> object:
    return command.main(list(argv), standalone_mode=False)


def test_a_command_gets_the_value_that_its_options_make() -> None:
    """A default, or an option beside them, would get lost on its way."""
    assert invoke("--closes=5s") == (Window(1.0, 5.0), "b")
    given = invoke("--beside=c", "--closes=9s", "--opens=2s")
    assert given == (Window(2.0, 9.0), "c")


def test_what_does_not_go_together_never_reaches_the_command() -> None:
    """Something would be sent before the mistake is seen."""
    with pytest.raises(ConfigError, match="--closes is before --opens"):
        invoke("--closes=1s", "--opens=2s")


def test_help_lists_them_in_their_order() -> None:
    """A reader would find related options torn apart."""
    assert [p.name for p in command.params] == ["opens", "closes", "beside"]

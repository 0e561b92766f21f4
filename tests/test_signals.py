"""Which signals are a stop, and which are COMMAND's own while it runs."""

from __future__ import annotations

import signal
import threading

import pytest

from integration.support.commands import HANG
from service_monitor.cli import values
from service_monitor.node.ending import Ending
from service_monitor.node.signals import PASSED_ON, STOPS, _is_stop, for_command

KERNEL, KILL = 0x80, 0


class Command:
    """Notes what it is passed; `runs` is what it says of itself."""

    def __init__(self, ending: Ending, runs: bool = True) -> None:
        self.runs = runs
        self.passed: list[int] = []
        ending.pass_on = self.send

    def send(self, number: int) -> bool:
        self.passed.append(number)
        return self.runs


def taken(number: int, by: int = KILL) -> signal.struct_siginfo:
    return signal.struct_siginfo([number, by, *[0] * 5])


@pytest.mark.parametrize("by", [KERNEL, KILL])
@pytest.mark.parametrize("also", [None, signal.SIGUSR1, signal.SIGTERM])
def test_a_stop_is_never_passed_on(by: int, also: int | None) -> None:
    """COMMAND would stop while others are still told to join it."""
    ending = Ending()
    ending.also_stops, command = also, Command(ending)
    for number in {*STOPS, *([also] if also else [])}:
        assert _is_stop(taken(number, by), ending)
    assert command.passed == []


def test_the_commands_own_are_passed_on_while_it_runs() -> None:
    """A reload would end the service."""
    ending = Ending()
    command = Command(ending)
    for number in PASSED_ON:
        assert not _is_stop(taken(number), ending)
    assert command.passed == [*PASSED_ON]
    command.runs = False
    assert all(_is_stop(taken(number), ending) for number in PASSED_ON)


def test_a_reload_waits_for_a_command_that_is_being_started() -> None:
    """It would end the service that has just begun to run."""
    ending, stops = Ending(), list[bool]()
    reload = threading.Thread(
        target=lambda: stops.append(_is_stop(taken(signal.SIGUSR1), ending))
    )
    with ending.starting():
        reload.start()
        reload.join(0.1)
        command = Command(ending)
    reload.join(HANG)
    assert (stops, command.passed) == ([False], [signal.SIGUSR1])


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("also", [None, signal.SIGWINCH])
def test_a_resized_window_is_never_a_stop(runs: bool, also: int | None) -> None:
    """The size of a window would decide over a service."""
    ending = Ending()
    ending.also_stops, command = also, Command(ending, runs)
    assert not _is_stop(taken(signal.SIGWINCH, KERNEL), ending)
    assert not (also and command.passed)  # to this COMMAND it would be a stop


def test_what_command_is_sent() -> None:
    """One that takes SIGHUP for a reload would be killed at the end of the timeout."""
    assert for_command(signal.SIGHUP) == signal.SIGTERM
    assert for_command(None) == signal.SIGTERM
    for number in (STOPS | PASSED_ON) - {signal.SIGHUP}:
        assert for_command(number) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("USR1", signal.SIGUSR1),
        ("SIGWINCH", signal.SIGWINCH),
        ("sigterm", signal.SIGTERM),
        ("10", signal.SIGUSR1),
        ("RTMIN+4", signal.SIGRTMIN + 4),
        ("SIGRTMAX-2", signal.SIGRTMAX - 2),
        (" 37 ", signal.SIGRTMIN + 3),
    ],
)
def test_signals_are_written_as_in_images_and_units(text: str, number: int) -> None:
    """An image's own word for it would be refused."""
    assert values.read_signal(text) == number

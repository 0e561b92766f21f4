"""The command line: parse, dispatch, exit codes.

stdout is data, stderr is for people. Each command is a file beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import click
from click.core import ParameterSource

from service_monitor import DISTRIBUTION
from service_monitor.cli.acquire_lease import acquire_lease
from service_monitor.cli.forget import forget
from service_monitor.cli.hosts import hosts
from service_monitor.cli.init_store import init_store
from service_monitor.cli.process import Process
from service_monitor.cli.release_lease import release_lease
from service_monitor.cli.reset import reset
from service_monitor.cli.run import run
from service_monitor.cli.status import status
from service_monitor.cli.twins import Twin
from service_monitor.cli.watch import watch
from service_monitor.errors import ServiceMonitorError, Stopped, describe
from service_monitor.net.calls import Bounds
from service_monitor.net.lacks import lack_in
from service_monitor.net.stop import Stop
from service_monitor.node.ending import Ending
from service_monitor.recipes.timings import TIMINGS, Timings
from service_monitor.text import forget_hidden, printable

LONGEST = 1000
"""Characters of an error that are printed."""
OUTPUT_LOST = 74  # sysexits.h EX_IOERR


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88}
)
@click.version_option(package_name=DISTRIBUTION, prog_name="service-monitor")
def cli() -> None:
    """Ordered, health-gated startup and honest discovery for clustered services.

    \b
    What a node does:
      service-monitor acquire-lease --label=es || exit    # wait for its turn
      hosts=$(service-monitor hosts --label=es) || exit   # whom to join
      start-es "$hosts" &                                 # empty: it is the first
      service-monitor watch --label=es --monitor-url=http://127.0.0.1:9200

    \b
    Or in one:
      service-monitor run --label=es --monitor-url=http://127.0.0.1:9200 -- start-es

    Options come from the environment too: --lease-timeout is
    SERVICE_MONITOR_LEASE_TIMEOUT. Durations are 30, 30s, 250ms, 5m or 2h.
    """


for _command in (
    watch,
    run,
    hosts,
    acquire_lease,
    release_lease,
    status,
    forget,
    reset,
    init_store,
):
    cli.add_command(_command)


def main(
    argv: Sequence[str] | None = None,
    stop: Stop | None = None,
    ending: Ending | None = None,
    timings: Timings = TIMINGS,
) -> int:
    """Run one command and return its exit code; `stop` ends it as a signal would.

    Blocks for as long as the command runs. Never raises, and never prints a traceback
    for what a user can cause.
    """
    stop = stop or Stop()
    forget_hidden()
    try:
        result = cli.main(
            args=None if argv is None else list(argv),
            prog_name="service-monitor",
            obj=Process(Bounds(stop), ending or Ending(), timings),
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(_usage(error), 2)
    except Stopped:
        return 128 + (stop.signal or 0)
    except ServiceMonitorError as error:
        return _fail(str(error), error.exit_code)
    except (OSError, RuntimeError, MemoryError, ImportError) as error:
        if lack := lack_in(error):
            return _fail(str(lack), lack.exit_code)
        if not isinstance(error, OSError):
            raise
        why = error if error.errno else describe(error)  # the system's, or a library's
        return _fail(f"cannot go on: {why}", OUTPUT_LOST)
    except SystemExit as error:  # click's: of a broken pipe, or of shell completion
        if not error.code and "_SERVICE_MONITOR_COMPLETE" not in os.environ:
            raise  # a script that lies in the way of a module ends the process
        return OUTPUT_LOST if error.code else 0
    return result if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> str:
    """Name the option, or the variable if the value came from there."""
    if isinstance(error, click.MissingParameter) and isinstance(
        error.param, click.Argument
    ):
        return f"{error.param.make_metavar(error.ctx)} is missing: write it after --"  # type: ignore[arg-type]
    if isinstance(error, click.BadParameter) and error.ctx and error.param:
        option, twin = error.param.opts[0], error.param.envvar
        if isinstance(error.param, Twin):
            twin = error.param.variable_in(os.environ) or twin
        if isinstance(error, click.MissingParameter):
            return f"{option} is missing; it may also come from {twin}"
        source = error.ctx.get_parameter_source(error.param.name or "")
        name = twin if source is ParameterSource.ENVIRONMENT else option
        return f"{name}: {error.message}"
    return error.format_message()


def _fail(message: str, code: int) -> int:
    line = printable(" ".join(message.split()), LONGEST)
    with suppress(OSError):  # the exit code is all that is left to tell it by
        click.echo(f"service-monitor: {line}", err=True)
    return code

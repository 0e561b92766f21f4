"""The command line: parse, dispatch, exit codes.

stdout is data, stderr is for people.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from service_monitor import DISTRIBUTION, options, values
from service_monitor.calls import STOP_GRACE, Stop
from service_monitor.errors import (
    ConfigError,
    ServiceMonitorError,
    Stopped,
    StoreRefused,
    StoreUnavailable,
    describe,
)
from service_monitor.lacks import lack_in
from service_monitor.manual import REFUSED, STORE_FAILED, Command
from service_monitor.notify import Notifier
from service_monitor.options import option
from service_monitor.shown import forget_hidden, mask_url, printable
from service_monitor.stores import Store, open_store, prepare_store
from service_monitor.timing import format_duration

if TYPE_CHECKING:
    from service_monitor.lease import Request
    from service_monitor.watcher import Watcher

log = logging.getLogger(__name__)

LONGEST = 1000
"""Characters of an error that are shown."""
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


@cli.command(cls=Command, exits={0: "ended by a signal"}, signalled={})
@options.label
@options.service_id
@options.probing
@options.heartbeat_file
@options.store
@options.log_level
@click.pass_obj
def watch(stop: Stop, /, **given: Any) -> None:
    """Probe a service, publish its state, pass the turn on.

    Up means 2xx. A service that is up is listed by `hosts`; the startup lease of this
    service id is released as soon as it is up. Runs until SIGTERM, SIGINT or SIGHUP,
    then deregisters at once.

    \b
    Example:
      service-monitor watch --label=es --monitor-url=http://127.0.0.1:9200
    """
    notifier = _notifier(given)
    new_watcher = _watching(given, stop, notifier, apart=True)
    with suppress(Stopped), _store(given, stop) as store:
        watcher = new_watcher(store)
        watcher.run()
        if watcher.holds:
            log.warning(
                "stopped before the service was up: its startup lease stays until it "
                "expires. To let the next node start now: release-lease"
            )


@cli.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    exits={
        0: "as any code that is COMMAND's own; 128 plus the number of its signal",
        1: "not acquired within --acquire-timeout; taken over by another one of this "
        "service id; or the lease was lost",
        126: "COMMAND cannot be executed",
        127: "COMMAND is not there, or what it needs to run is not",
    }
    | REFUSED,
)
@options.label
@options.service_id
@options.probing
@options.leasing
@option(
    "--on-lease-timeout",
    type=click.Choice(["fail", "start"]),
    default="fail",
    help="What to do when the turn does not come within --acquire-timeout.",
)
@option(
    "--on-lease-lost",
    type=click.Choice(["continue", "stop"]),
    show_default="stop while SERVICE_MONITOR_FIRST is 1, else continue",
    help="What to do when the lease is lost before COMMAND is up.",
)
@options.stopping
@options.heartbeat_file
@options.store
@options.log_level
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(stop: Stop, /, **given: Any) -> int:
    """Start COMMAND when it is its turn, and watch it.

    Acquires the lease, starts COMMAND, releases the lease as soon as that is up, and
    publishes its state. When told to stop it deregisters first. COMMAND finds whom to
    join in SERVICE_MONITOR_HOSTS, and in SERVICE_MONITOR_FIRST a 1 if it is to found
    the cluster.

    \b
    Example:
      service-monitor run --label=es --monitor-url=http://127.0.0.1:9200 -- es
    """
    from service_monitor.node.executable import find
    from service_monitor.runner import Plan, Runner

    command, notifier = given["command"], _notifier(given)
    stop.also = given["stop_signal"]
    on_lost: str | None = given["on_lease_lost"]
    find(command[0])
    new_watcher = _watching(given, stop, notifier)
    request_of = _request(given, stays=True)
    with _store(given, stop) as store:
        watcher = new_watcher(store)
        plan = Plan(
            command,
            given["acquire_timeout"],
            start_anyway=given["on_lease_timeout"] == "start",
            stop_if_lost=None if on_lost is None else on_lost == "stop",
            stop_timeout=given["stop_timeout"],
            drain=given["drain"],
            stop_alone=given["stop_whom"] == "command",
        )
        request = request_of(watcher.service.host)
        return Runner(store, request, plan, watcher, stop, notifier).run()


def _notifier(given: dict[str, Any]) -> Notifier:
    return Notifier(os.environ, given["heartbeat_file"])


def _watching(
    given: dict[str, Any], stop: Stop, notifier: Notifier, *, apart: bool = False
) -> Callable[[Store], Watcher]:
    """Check what there is to watch; return what watches it once the store is open.

    `apart` is a service that somebody else starts, maybe in another container.
    """
    from service_monitor.addresses import with_port
    from service_monitor.node.hints import with_hint
    from service_monitor.node.place import host_to_publish
    from service_monitor.node.tcp import CONNECTED_INTERVAL
    from service_monitor.probe import Target, new_probe
    from service_monitor.registry import Service
    from service_monitor.watcher import STARTUP_INTERVAL, STEP, Rhythm, Watcher

    interval, timeout, ttl = _rhythm(**given)
    if notifier.watchdog is not None and notifier.watchdog < max(ttl, STEP):
        raise ConfigError(
            f"WatchdogSec of the unit is {format_duration(notifier.watchdog)}, and a "
            f"step may take {format_duration(max(ttl, STEP))}: make it that or more"
        )
    url, ca, insecure = given["monitor_url"], given["ca"], given["insecure"]
    if ca and insecure:
        raise ConfigError("--ca and --insecure contradict each other")
    target = Target(url, timeout, dict(given["header"]), ca, insecure)
    label, service_id = given["label"], given["service_id"] or values.own_name()
    info = {key: value for part in given["info"] for key, value in part.items()}
    connected = CONNECTED_INTERVAL if url.startswith("tcp:") else STARTUP_INTERVAL
    rhythm = Rhythm(interval, given["rise"], given["fall"], connected)

    def watcher(store: Store) -> Watcher:
        host = host_to_publish(given["host"], url, store, stop, notifier, beside=apart)
        shown = mask_url(url)
        port = given["advertise_port"]
        place = with_port(host, port)
        log.info(
            "label %s: watching %s at %s as host %s", label, service_id, shown, place
        )
        service = Service(label, service_id, host, ttl, info, port)
        probe = new_probe(target, stop)
        if apart:
            probe = with_hint(probe, url)
        return Watcher(store, service, rhythm, probe, stop, notifier)

    return watcher


def _rhythm(
    interval: float, timeout: float | None, ttl: float | None, **_: Any
) -> tuple[float, float, float]:
    """Fill in the defaults, and refuse what cannot be kept."""
    timeout = timeout or min(3.0, interval)
    if timeout > interval:
        raise ConfigError(
            f"--timeout {format_duration(timeout)} is longer than --interval "
            f"{format_duration(interval)}: probes would overlap; lower --timeout"
        )
    least = max(3.0, interval + timeout)
    ttl = ttl or max(15.0, least)
    if ttl < least:
        raise ConfigError(
            f"--ttl {format_duration(ttl)} is too short to be kept: raise it to "
            f"{format_duration(least)}, --interval plus --timeout and 3 s at the least"
        )
    return interval, timeout, ttl


@cli.command(
    cls=Command,
    exits={0: "printed", 1: "--wait: too few hosts within --timeout"} | STORE_FAILED,
)
@options.label
@option(
    "--wait",
    type=values.COUNT,
    is_flag=False,
    flag_value=1,
    metavar="[N]",
    help="Wait until N hosts are up (1 if N is left out).",
)
@option(
    "--timeout",
    type=values.DURATION,
    default="360s",
    help="How long --wait waits.",
)
@option(
    "--port",
    type=values.PORT,
    help="Print hosts that registered no port as HOST:PORT.",
)
@option(
    "--format",
    "format_",
    type=click.Choice(["comma", "lines", "json"]),
    default="comma",
    help="How to print them.",
)
@options.host("Accepted from units of the 2014 tool; changes nothing.")
@options.store
@options.log_level
@click.pass_obj
def hosts(stop: Stop, /, **given: Any) -> None:
    """Print the hosts that are up: whom to join.

    Each once, naturally sorted; as HOST:PORT where a port is registered. No host is an
    empty line and exit 0: this node is the first. A store that does not answer is exit
    69 and prints nothing.

    \b
    Example:
      service-monitor hosts --label=es --port=9300
      10.0.0.1:9300,10.0.0.2:9300
    """
    from service_monitor.records import hosts_prefix
    from service_monitor.registry import up_hosts, wait_for_hosts

    label = given["label"]
    with _store(given, stop) as store:
        if given["wait"]:
            count, timeout = given["wait"], given["timeout"]
            listed = wait_for_hosts(store, label, count, timeout, stop, given["port"])
        else:
            records = store.list(hosts_prefix(label)).records
            listed = up_hosts(records, given["port"])
    if given["format_"] == "json":
        _print(json.dumps(listed))
    else:
        _print(("\n" if given["format_"] == "lines" else ",").join(listed))


@cli.command(
    cls=Command,
    exits={
        0: "acquired",
        1: "not acquired within --acquire-timeout, or taken over by another "
        "acquire-lease of this service id",
    }
    | REFUSED,
)
@options.label
@options.service_id
@options.leasing
@options.host(
    "The host that others see in the queue.",
    show_default="the address that reaches the store",
)
@option(
    "--print-token",
    is_flag=True,
    help="Print the fencing token: a number that grows with each acquisition.",
)
@options.heartbeat_file
@options.store
@options.log_level
@click.pass_obj
def acquire_lease(stop: Stop, /, **given: Any) -> None:
    """Wait for this node's turn to start.

    First come, first served. The lease outlives this command: `watch` releases it when
    the service is up, else it ends after --lease-timeout. Asking again while holding it
    succeeds at once, so a restart never waits for itself.

    \b
    Example:
      service-monitor acquire-lease --label=es --service-id=es-1
    """
    from service_monitor.acquire import acquire
    from service_monitor.recipes.seen import seen_host

    request_of = _request(given)
    with _store(given, stop) as store:
        host, known = seen_host(given["host"], store.local_address)
        published = given["host"] is not None
        request = replace(request_of(host), known=known, published=published)
        notifier = _notifier(given)
        lease = acquire(store, request, given["acquire_timeout"], stop, notifier)
        if given["print_token"]:
            try:
                _print(str(lease.token))
            except OSError:  # with no exit code but 0 may anything stay behind
                stop.limit(STOP_GRACE)
                store.delete(lease.record)
                raise


@cli.command(
    cls=Command,
    exits={0: "released, or there was none", 1: "held by another acquisition"}
    | STORE_FAILED,
)
@options.label
@options.service_id
@option(
    "--token",
    type=values.TOKEN,
    help="Release only the acquisition with this token.",
)
@option(
    "--force",
    is_flag=True,
    help="Release it whatever its token, also a ticket that still waits.",
)
@options.store
@options.log_level
@click.pass_obj
def release_lease(stop: Stop, /, **given: Any) -> None:
    """Give a lease back by hand.

    For a start that failed, or a service without a `watch`.

    \b
    Example:
      service-monitor release-lease --label=es --service-id=es-1
    """
    from service_monitor.lease import release

    service_id = given["service_id"] or values.own_name()
    label, token, force = given["label"], given["token"], given["force"]
    with _store(given, stop) as store:
        done = release(store, label, service_id, token, force=force)
    said = "released the lease of" if done else "no lease to release of"
    log.info("label %s: %s %s", label, said, service_id)


@cli.command(cls=Command, exits={0: "printed"} | STORE_FAILED)
@option("--label", type=values.NAME_TYPE, show_default="all", help="Only this cluster.")
@option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How to print it.",
)
@options.store
@options.log_level
@click.pass_obj
def status(stop: Stop, /, **given: Any) -> None:
    """Show services, lease holders and waiters.

    Services with their state and its reason; who holds a lease or waits for one, with
    position, age and the seconds left.

    \b
    Example:
      service-monitor status --label=es
    """
    from service_monitor.status import gather, render

    with _store(given, stop) as store:
        found = gather(store, given["label"])
    as_json = given["format_"] == "json"
    _print(json.dumps(found, indent=2) if as_json else render(found))


@cli.command(cls=Command, exits={0: "made, or nothing to make"} | STORE_FAILED)
@option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@options.store
@options.log_level
@click.pass_obj
def init_store(stop: Stop, /, **given: Any) -> None:
    """Make what the store needs before its first use.

    For DynamoDB that is the table. All other stores need nothing. To repeat it does no
    harm: what is there stays as it is.

    \b
    Example:
      service-monitor init-store --store='dynamodb://nodes?region=eu-central-1'
    """
    with _explained(given):
        made = prepare_store(given["store"], stop, dry_run=given["dry_run"])
    for line in made:
        _print(f"{'would make' if given['dry_run'] else 'made'} {line}")
    if not made:
        _print("nothing to make: this store is ready")


def _request(given: dict[str, Any], *, stays: bool = False) -> Callable[[str], Request]:
    """Check what is asked for; return what makes it once the host is known."""
    from service_monitor.lease import Request

    if given["lease_timeout"] < 1:
        raise ConfigError("--lease-timeout is too short: no service is up within 1 s")
    service_id = given["service_id"] or values.own_name()

    def request(host: str) -> Request:
        timeout, slots = given["lease_timeout"], given["slots"]
        return Request(
            given["label"], service_id, host, timeout, slots, stays, published=stays
        )

    return request


@contextmanager
def _store(given: dict[str, Any], stop: Stop) -> Iterator[Store]:
    """Open the store of the command, after the other options were checked."""
    store = open_store(given["store"], stop)
    _warn(given)
    try:
        with _explained(given):
            stop.check()
            yield store
    finally:
        store.close()


@contextmanager
def _explained(given: dict[str, Any]) -> Iterator[None]:
    """Say of a store's error that it is one."""
    try:
        yield
    except StoreUnavailable as error:
        hint = "" if given["store"] else " (the default one: --store names another)"
        raise StoreUnavailable(f"the store cannot be reached: {error}{hint}") from error
    except StoreRefused as error:
        raise StoreRefused(f"the store refuses us: {error}") from error


def _warn(given: dict[str, Any]) -> None:
    """Name the options that leave a service unchecked, or tell a secret to `ps`."""
    if given.get("insecure"):
        name = mask_url(given["monitor_url"])
        log.warning("--insecure: the certificate of %s is not checked", name)
    urls = {name: given.get(name) or "" for name in ("store", "monitor_url")}
    secret = {name for name, url in urls.items() if mask_url(url) != url}
    if any(name.lower() == "authorization" for name, _ in given.get("header", ())):
        secret.add("header")
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        if param.name in secret and source is ParameterSource.COMMANDLINE:
            log.warning(
                "%s holds a password, which ps shows to everybody on this machine: "
                "put it into %s",
                param.opts[0],
                param.envvar,
            )


def _print(text: str) -> None:
    """Write the data."""
    click.echo(text)


def main(argv: Sequence[str] | None = None, stop: Stop | None = None) -> int:
    """Run one command and return its exit code; `stop` ends it as a signal would.

    Never raises, and never prints a traceback for what a user can cause.
    """
    stop = stop or Stop()
    forget_hidden()
    try:
        result = cli.main(
            args=None if argv is None else list(argv),
            prog_name="service-monitor",
            obj=stop,
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

"""The option --store, and the store opened once the other options were checked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click
from click.core import ParameterSource

from service_monitor.cli import values
from service_monitor.cli.options import gathered, option
from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import MonitoredURL
from service_monitor.stores.base import Store
from service_monitor.stores.opening import StorePlace, open_store, parse_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreChoice:
    """The store that a command is to use."""

    place: StorePlace
    is_default: bool
    """Whether no option and no variable of ours named one."""


def store_of(store: str | None) -> StoreChoice:
    """Read the URL, or find the default. Raises `ConfigError` and `LocalLack`."""
    return StoreChoice(parse_store(store), store is None)


store_option = gathered(
    "store",
    store_of,
    option(
        "--store",
        type=values.STORE_TYPE,
        show_default="see below",
        help="Where the records are.",
    ),
)


@contextmanager
def opened(
    choice: StoreChoice, bounds: Bounds, unchecked: MonitoredURL | None = None
) -> Iterator[Store]:
    """Open the store of the command, after the other options were checked.

    Log what they leave open to attacks: an `unchecked` certificate, a typed secret.
    Raises `ConfigError`, and `Stopped` where the stop was requested already. A
    `StoreError` of what is done with it says whose it is.
    """
    store = open_store(choice.place, bounds)
    if unchecked:
        log.warning("--insecure: the certificate of %s is not checked", unchecked)
    _warn_of_typed_secrets(click.get_current_context())
    try:
        with explained(choice):
            bounds.stop.check()
            yield store
    finally:
        with bounds.within_the_last():
            store.close()


@contextmanager
def explained(choice: StoreChoice) -> Iterator[None]:
    """Prefix a store's error with what failed."""
    try:
        yield
    except StoreUnavailable as error:
        hint = " (the default one: --store names another)" if choice.is_default else ""
        raise StoreUnavailable(f"the store cannot be reached: {error}{hint}") from error
    except StoreRefused as error:
        raise StoreRefused(f"the store refuses us: {error}") from error


def _warn_of_typed_secrets(context: click.Context) -> None:
    """Name the options that tell a secret to `ps`."""
    for param in context.command.params:
        name = str(param.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and values.holds_secret(param, context.params.get(name)):
            log.warning(
                "%s holds a password, which ps shows to everybody on this machine: "
                "put it into %s",
                param.opts[0],
                param.envvar,
            )

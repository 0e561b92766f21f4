"""The store of a command, opened once its other options were checked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from service_monitor.errors import StoreRefused, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.net.urls import mask_url
from service_monitor.stores.base import Store
from service_monitor.stores.opening import open_store

log = logging.getLogger(__name__)


@contextmanager
def opened(given: dict[str, Any], bounds: Bounds) -> Iterator[Store]:
    """Open the store of the command, after the other options were checked."""
    store = open_store(given["store"], bounds)
    _warn(given)
    try:
        with explained(given):
            bounds.stop.check()
            yield store
    finally:
        with bounds.within_the_last():
            store.close()


@contextmanager
def explained(given: dict[str, Any]) -> Iterator[None]:
    """Prefix a store's error with what failed."""
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

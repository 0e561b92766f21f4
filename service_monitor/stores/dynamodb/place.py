"""Which table a dynamodb:// URL names, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from service_monitor import DISTRIBUTION
from service_monitor.errors import ConfigError
from service_monitor.net.calls import Bounds
from service_monitor.net.lacks import lack_in
from service_monitor.stores.base import Store
from service_monitor.stores.url import PREFIX, Grammar
from service_monitor.text import quoted

_GRAMMAR = Grammar(
    form="does not read as dynamodb://TABLE[/PREFIX][?region=R&endpoint=URL&"
    "profile=P]; a table has 3 to 255 letters, digits, '.', '_' and '-'",
    places="[A-Za-z0-9_.-]{3,255}",
    path=PREFIX,
    options=("region", "endpoint", "profile"),
)


@dataclass(frozen=True)
class DynamoPlace:
    """Which table, and where; what is None comes from boto3's own settings."""

    table: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None

    def open(self, bounds: Bounds, call_timeout: float) -> Store:
        """Open it with boto3; see `stores.opening.open_store`."""
        require_boto3()
        from service_monitor.stores.dynamodb.store import DynamoStore

        return DynamoStore(self, bounds, call_timeout)

    def prepare(self, bounds: Bounds, *, dry_run: bool) -> Sequence[str]:
        """Make the table; see `stores.opening.prepare_store`."""
        require_boto3()
        from service_monitor.stores.dynamodb.table import init_table

        return init_table(self, bounds, dry_run=dry_run)


def parse_dynamodb(url: str) -> DynamoPlace:
    """Read `dynamodb://TABLE[/PREFIX][?region=..&endpoint=..&profile=..]`.

    Raises `ConfigError`.
    """
    parsed = _GRAMMAR.parse(url)
    options = parsed.options
    if not re.fullmatch("[a-z0-9-]{1,63}", options.get("region", "-")):
        raise parsed.wrong(f"names no region: {quoted(options['region'])}")
    if "@" in options.get("endpoint", ""):  # in the URL that is %40: not masked
        raise ConfigError(
            f"store dynamodb://{parsed.places} has a user or password in its "
            "endpoint: DynamoDB takes none, leave them out"
        )
    if "endpoint" in options and not _is_endpoint(options["endpoint"]):
        raise parsed.wrong("needs an endpoint like https://HOST[:PORT]")
    return DynamoPlace(parsed.places, parsed.path.rstrip("/"), **options)


def require_boto3() -> None:
    """Raise `ConfigError` where boto3 is not installed, `LocalLack` where it may be."""
    try:
        import boto3  # noqa: F401
        import botocore  # noqa: F401
    except ImportError as error:
        if lack := lack_in(error):
            raise lack from error
        raise ConfigError(
            f"dynamodb:// needs boto3 ({error}): pip install '{DISTRIBUTION}[dynamodb]'"
        ) from error


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not (parts.query or parts.fragment)
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and bare
    )

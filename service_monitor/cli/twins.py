"""Variables of the environment: read for options, refused if broken, else warned of.

1. A Kubernetes service or a linked container called service-monitor makes variables
   with our prefix. They are not ours: never an error, never a warning.
2. What `docker run --env-file` leaves in a value, quotes or the CR of a file with
   Windows line ends, is refused: it would be part of a name, or be published.
3. A name that nothing reads is warned of, once, with the nearest that there is.
4. One name has one meaning. Two of old had two: they are read where their successor is
   not set, with a warning.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from service_monitor.text import has_windows_end, is_in_quotes

log = logging.getLogger(__name__)

PREFIX = "SERVICE_MONITOR_"

_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)
_LINKED = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?"
    r"(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?|ENV_\w+)"
)
_EXACT = {"name", "host", "url", "file", "choice"}
"""Types that take a value as it stands; the others leave blanks around it aside."""
_LIKENESS = 0.7
"""How much alike, from 0 to 1, two names are of which one may be meant."""
_SAME = 0.9
"""How much alike our prefix and one are that is hardly anybody else's."""


class Twin(click.Option):
    """An option with a variable that stands for it, read with care.

    Where that one is not set, an older name of it counts: `also` one that was clear,
    `formerly` one that had another meaning for other commands. Both without our prefix.
    """

    def __init__(
        self,
        *args: Any,
        also: str | None = None,
        formerly: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.ambiguous = PREFIX + formerly if formerly else None
        """The older name that has two meanings."""
        older = [PREFIX + also] if also else []
        self.older = older + ([self.ambiguous] if self.ambiguous else [])
        """The older names of its variable."""

    def variable_in(self, environ: Mapping[str, str]) -> str | None:
        """Return the variable that gives the option a value there, None if none does.

        An empty one does not, nor one of a Kubernetes service or a linked container.
        """
        return next(self._set_in(environ), None)

    def _set_in(self, environ: Mapping[str, str]) -> Iterator[str]:
        for name in (str(self.envvar), *self.older):
            value = environ.get(name)
            if value and not is_link(name, value):
                yield name

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of its variable. Raises UsageError for a flaw in it."""
        name = self.variable_in(os.environ)
        if name is None:
            return None
        value = os.environ[name]
        exact = self.type.name in _EXACT
        wrong = flaw(value, lines=self.multiple, exact=exact)
        if wrong and not ctx.resilient_parsing:
            raise click.UsageError(f"{name}: {wrong}", ctx)
        return value

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, ParameterSource]:
        """Take the value as click does; warn of an older name of its variable."""
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.ENVIRONMENT and not ctx.resilient_parsing:
            self._warn_of_older(os.environ)
        return value, source

    def _warn_of_older(self, environ: Mapping[str, str]) -> None:
        """Log that an ambiguous name was read, or that an older one has no effect."""
        read, *others = self._set_in(environ)
        if read == self.ambiguous:
            log.warning(
                "%s has two meanings: here it is read as %s. Set that one instead",
                read,
                self.envvar,
            )
        for name in others:
            if environ[name] != environ[read]:
                log.warning(
                    "%s counts, and not its older name %s, which says something else",
                    read,
                    name,
                )


def is_link(name: str, value: str) -> bool:
    """Tell whether a Kubernetes service or a linked container set this variable."""
    if name.endswith("_PORT") and _ADDRESS.fullmatch(value):
        return True  # the only kind that has the name of one of ours
    if name.endswith("_NAME") and value.startswith("/"):
        return True
    return _LINKED.fullmatch(name) is not None


def flaw(value: str, *, lines: bool = False, exact: bool = False) -> str | None:
    """Say what is wrong with how the value was written, without showing it.

    It may be several `lines` of a value each, or JSON. To an `exact` one blanks belong.
    """
    if has_windows_end(value):
        return (
            "the value ends in a carriage return: the file that it comes from has "
            "Windows line ends; save it with Unix ones"
        )
    json = value.lstrip().startswith("{")
    parts = value.split("\n") if lines and not json else [value]
    if any(map(is_in_quotes, parts)):
        return (
            "the value stands in quotes, which docker run --env-file keeps: leave "
            "them out"
        )
    if exact and value.strip() and value != value.strip():
        return "the value has blanks around it: leave them out"
    return None


def warn_of_unknown(ctx: click.Context, environ: Mapping[str, str]) -> None:
    """Log each variable with our prefix, or one much like it, that no command reads."""
    words = _words(ctx)
    known = {name for names in words.values() for name in names} | set(_older(ctx))
    found = {
        name: _as_ours(name, words)
        for name, value in sorted(environ.items())
        if name not in known and not is_link(name, value)
    }
    unknown = {name: ours for name, ours in found.items() if ours}
    if not unknown:
        return
    from service_monitor.node import joining  # slow, and needed below `run` alone

    run_sets = joining.HOSTS, joining.FIRST, joining.TOKEN, joining.MEMBERS
    words |= {each.removeprefix(PREFIX): {each} for each in run_sets}
    for name, ours in unknown.items():
        if name not in run_sets:
            log.warning("%s is set, and nothing reads it%s", name, _hint(ours, words))


def _twins(ctx: click.Context) -> list[Twin]:
    """Return the options of all commands that have a variable."""
    root = ctx.find_root().command
    commands = getattr(root, "commands", {}).values()
    params = [param for command in (*commands, ctx.command) for param in command.params]
    return [param for param in params if isinstance(param, Twin)]


def _older(ctx: click.Context) -> Iterator[str]:
    for twin in _twins(ctx):
        yield from twin.older


def _words(ctx: click.Context) -> dict[str, set[str]]:
    """Return the variables of all commands, by the words that a user may try.

    That is what follows the prefix, and what would follow it of an option's names.
    """
    words: dict[str, set[str]] = defaultdict(set)
    for twin in _twins(ctx):
        name = str(twin.envvar)
        for word in (name.removeprefix(PREFIX), *twin.opts):
            words[word.removeprefix("--").replace("-", "_").upper()].add(name)
    return words


def _as_ours(name: str, words: Iterable[str]) -> str | None:
    """Return it with our prefix, None if it has none that was meant to be ours."""
    if name.startswith(PREFIX):
        return name
    plain = name.upper().replace("-", "_")
    for word in words:
        prefix = plain.removesuffix(word)
        if prefix != plain and abs(len(prefix) - len(PREFIX)) <= 1:
            import difflib

            if difflib.SequenceMatcher(None, prefix, PREFIX).ratio() >= _SAME:
                return PREFIX + word
    return None


def _hint(name: str, words: Mapping[str, Iterable[str]]) -> str:
    import difflib

    word = name.removeprefix(PREFIX)
    near = difflib.get_close_matches(word, sorted(words), 1, _LIKENESS)
    if not near:
        return ""
    own, meant = PREFIX + near[0], sorted(words[near[0]])
    return f": did you mean {own if own in meant else ' or '.join(meant)}?"

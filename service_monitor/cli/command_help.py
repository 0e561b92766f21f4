"""What --help says below the options: stores, exit codes, environment."""

from __future__ import annotations

from typing import Any

import click

from service_monitor.cli.twins import Twin

_STORES = [
    ("etcd://HOST[:2379][,HOST2...][/PREFIX]", "etcd v3; etcds:// for TLS"),
    ("etcd2://HOST[:2379][,HOST2...][/PREFIX]", "etcd v2; etcd2s:// for TLS"),
    ("dynamodb://TABLE[/PREFIX][?region=R]", "AWS; made by `init-store`"),
    ("sqlite:///DIRECTORY/FILE.db", "for the processes of one machine"),
]
_MORE_STORES = (
    "With credentials: etcds://USER@HOST?password-file=FILE&ca=FILE&cert=FILE&key=FILE "
    "(or USER:PASSWORD@HOST); those of AWS, and the region, are where the AWS tools "
    "look for them. Without --store it is $ETCDCTL_ENDPOINTS, else etcd v3 on port "
    "2379 of this host or, in a container, of its default gateway."
)
_ENVIRONMENT = (
    "Each stands for an option; an empty one counts as not set. One in brackets is an "
    "older name of the one before it, and is read where that is not set. What the "
    "store's URL leaves out comes from ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY, "
    "ETCDCTL_USER and ETCDCTL_PASSWORD."
)
_EXITS = {
    2: "usage or configuration; nothing was sent",
    70: "a fault of ours, or of the installation; nothing is known",
    71: "this machine lacks threads, open files or memory",
    74: "the output cannot be written",
}
REFUSED = {69: "the store refused us before it ever served us"}
STORE_FAILED = {69: "the store cannot be reached or refuses us"}
_SIGNALLED = {
    129: "ended by SIGHUP",
    130: "ended by SIGINT",
    131: "ended by SIGQUIT",
    143: "ended by SIGTERM",
}


def _variables(twin: Twin) -> str:
    older = f" ({', '.join(twin.older)})" if twin.older else ""
    return f"{twin.envvar}{older}"


class Command(click.Command):
    """A command whose help tells its stores, exit codes and environment."""

    def __init__(
        self,
        *args: Any,
        exits: dict[int, str],
        signalled: dict[int, str] = _SIGNALLED,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.exits = dict(sorted((_EXITS | exits | signalled).items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write stores, exit codes and variables below the options."""
        with formatter.section("Stores"):
            formatter.write_dl(_STORES, col_max=40)
            formatter.write_text(_MORE_STORES)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in self.exits.items()])
        with formatter.section("Environment"):
            twins = [param for param in self.params if isinstance(param, Twin)]
            formatter.write_text(", ".join(map(_variables, twins)))
            formatter.write_text(_ENVIRONMENT)

"""Measure one `list` of a label's members, as large as they get, on each store.

    python -m benchmarks.members --members 1000

Each member has 20 events with reasons of 100 characters and info of 200 bytes, a few
have info of 16 KiB. What counts is the seconds of that one primitive, which has
`CALL_TIMEOUT` of them, its HTTP requests, and the bytes that came for it.
"""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from unittest import mock

import click

from integration.support.dynamodb import CREDENTIALS, start_dynamodb
from integration.support.etcd import start_etcd
from integration.support.stores import open_url
from service_monitor.recipes.member import MOST_EVENTS, Event, Member
from service_monitor.records import member_key, members_prefix
from service_monitor.stores.base import CALL_TIMEOUT
from service_monitor.timing import timestamp

STORES = "etcd", "etcd2", "sqlite", "dynamodb"
LARGE = 100
"""Every so many members one has the largest info."""


class Traffic:
    """The HTTP requests that this process sent, and the bytes that came for them."""

    def __init__(self) -> None:
        self.requests = self.bytes = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while the block runs."""
        self.requests = self.bytes = 0
        send, receive = http.client.HTTPConnection.putrequest, socket.socket.recv_into

        def putrequest(*args: Any, **settings: Any) -> None:
            self.requests += 1
            send(*args, **settings)

        def recv_into(*args: Any) -> int:
            got = receive(*args)
            self.bytes += got
            return got

        with (
            mock.patch("http.client.HTTPConnection.putrequest", putrequest),
            mock.patch("socket.socket.recv_into", recv_into),
        ):
            yield


def member(number: int) -> str:
    """Return the JSON of a member that has been through a lot."""
    events = [Event(timestamp(), "granted", "x" * 100, 1234.5)] * MOST_EVENTS
    info = {"text": "x" * (16_384 if number % LARGE == 0 else 200)}
    name, host = f"node-{number}", f"10.0.{number // 250}.{number % 250 + 1}"
    return Member(
        name, host, "up", "x" * 100, port=9200, info=info, events=tuple(events)
    ).to_json()


def measure(url: str, members: int, rounds: int) -> str:
    """Write the members, list them again and again, and say what that took."""
    with closing(open_url(url)) as store:
        for number in range(members):
            store.create(member_key("es", f"node-{number}"), member(number), None)
    taken, traffic = [], Traffic()
    for _ in range(rounds):
        with closing(open_url(url)) as store, traffic.counted():
            begun = time.monotonic()
            found = store.list(members_prefix("es")).records
            taken.append(time.monotonic() - begun)
        assert len(found) == members
        assert [each.created for each in found] == sorted(r.created for r in found)
    values = sum(len(each.value.encode()) for each in found)
    return (
        f"median {statistics.median(taken):.2f} s, longest {max(taken):.2f} s of "
        f"{CALL_TIMEOUT:g} s, {traffic.requests} requests, "
        f"{traffic.bytes / 1e6:.1f} MB received for {values / 1e6:.1f} MB of JSON"
    )


@contextmanager
def started(name: str) -> Iterator[str]:
    """Start a store, and give its URL."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite://{folder}/store.db"
    elif name == "dynamodb":
        with mock.patch.dict(os.environ, CREDENTIALS), start_dynamodb() as server:
            yield server.make_table()
    else:
        with start_etcd(prefer="process", unsafe_no_fsync=True) as etcd:
            yield etcd.url if name == "etcd" else etcd.url_v2


@click.command()
@click.option("--members", default=1000, help="How many.")
@click.option("--rounds", default=5, help="How often they are listed.")
@click.option(
    "--store", "stores", multiple=True, type=click.Choice(STORES), default=STORES
)
def main(members: int, rounds: int, stores: Sequence[str]) -> None:
    """Measure the listing of members on each store, by default on all four."""
    for name in stores:
        with started(name) as url:
            print(f"{name}: {measure(url, members, rounds)}", flush=True)


if __name__ == "__main__":
    main()

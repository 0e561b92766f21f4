"""Behave like a booting ElasticSearch node, as far as forming clusters goes.

A stand-in with nothing but the standard library: it also runs as this single file in
a plain Python container. Its startup time S passes like this:

    0        nothing listens: connection refused
    0.4 S    listens and answers 503, without a cluster
    0.7 S    discovery: asks each seed host in turn to let it join. The first one that
             is in a cluster takes it in; if none is, the node elects itself and founds
             a cluster of its own. That is all, so nodes that start blind split.
    S        answers 200

Each step is a line on stdout: `listening`, `joined UUID ...` or `elected UUID ...`,
`ready`. A node only counts members that accept a connection at that moment.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import math
import random
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

LISTENS, DISCOVERS = 0.4, 0.7
PEER_TIMEOUT = 1.0

Answer = tuple[int, dict[str, Any]]


class Node:
    """Know the cluster this node is in, and answer for it; no sockets of its own."""

    def __init__(self, name: str, address: str, cluster_name: str = "fake") -> None:
        self.name = name
        self.address = address
        self.cluster_name = cluster_name
        self.uuid: str | None = None
        self.ready = False
        self._peers: dict[str, str] = {}  # address: the cluster it said it is in
        self._lock = threading.Lock()

    def peers(self) -> list[str]:
        """List the other members of this node's cluster, dead ones included."""
        with self._lock:
            return sorted(
                peer for peer, uuid in self._peers.items() if uuid == self.uuid
            )

    def discover(self, seeds: Iterable[str], new_uuid: Callable[[], str]) -> str:
        """Join the first seed that is in a cluster, else found one; say which."""
        for seed in seeds:
            if seed == self.address:
                continue
            answer = ask(seed, "POST", "/_join", {"address": self.address})
            if uuid := answer.get("cluster_uuid"):
                with self._lock:
                    self.uuid = uuid
                    members = [seed, *answer.get("members", ())]
                    self._peers |= dict.fromkeys(members, uuid)
                    self._peers.pop(self.address, None)
                # The seed told us of the others; tell them of us.
                for peer in self.peers():
                    if peer != seed:
                        claim = {"address": self.address, "cluster_uuid": uuid}
                        ask(peer, "POST", "/_join", claim)
                return f"joined {uuid} through {seed}"
        self.uuid = new_uuid()
        return f"elected {self.uuid}"

    def join(self, address: str, uuid: str | None = None) -> Answer:
        """Take in a node that asks to, or note one that says it is in a cluster."""
        with self._lock:
            if not (claim := uuid or self.uuid):
                return 503, {}
            self._peers[address] = claim
            if not self.uuid:  # its claim may come before the answer to our own request
                return 503, {}
            members = [peer for peer, of in self._peers.items() if of == self.uuid]
            return 200, {"cluster_uuid": self.uuid, "members": members}

    def root(self) -> Answer:
        """Answer `/`."""
        body: dict[str, Any] = {"name": self.name, "cluster_name": self.cluster_name}
        if self.uuid:
            body["cluster_uuid"] = self.uuid
        body |= {"version": {"number": "0.0.0"}, "tagline": "You Know, for Search"}
        return (200 if self.ready else 503), body

    def health(self) -> Answer:
        """Answer `/_cluster/health`."""
        if not self.ready:
            error = {"type": "master_not_discovered_exception", "reason": None}
            return 503, {"error": error, "status": 503}
        nodes = 1 + sum(map(accepts, self.peers()))
        return 200, {
            "cluster_name": self.cluster_name,
            "cluster_uuid": self.uuid,
            "status": "green",
            "timed_out": False,
            "number_of_nodes": nodes,
            "number_of_data_nodes": nodes,
            "active_shards_percent_as_number": 100.0,
        }


def ask(address: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """Send a request to another node; no answer of any kind is an empty dict."""
    connection = http.client.HTTPConnection(address, timeout=PEER_TIMEOUT)
    try:
        connection.request(method, path, json.dumps(body))
        answer = json.load(connection.getresponse())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


def accepts(address: str) -> bool:
    """Tell whether something accepts connections at `host:port` now."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), PEER_TIMEOUT).close()
    except OSError:
        return False
    return True


class Server(ThreadingHTTPServer):
    """Serve a `Node` on its own address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, node: Node) -> None:
        self.node = node
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the full host name, which can take seconds.
        socketserver.TCPServer.server_bind(self)


class Handler(BaseHTTPRequestHandler):
    """Pass requests on to the server's node."""

    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        routes = {
            "/": self.server.node.root,
            "/_cluster/health": self.server.node.health,
        }
        self._answer(routes[path]() if path in routes else (404, {"status": 404}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer: Answer = 404, {"status": 404}
        if self.path == "/_join":
            try:
                claim = json.loads(body)
                uuid = claim.get("cluster_uuid")
                answer = self.server.node.join(claim["address"], uuid)
            except (ValueError, AttributeError, KeyError) as error:
                answer = 400, {"status": 400, "error": repr(error)}
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        status, body = answer
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: stdout tells the steps of the boot and nothing else."""


def addresses(seeds: str, port: int) -> list[str]:
    """Read `a,b:9300,c` as `host:port` each."""
    hosts = filter(None, map(str.strip, seeds.split(",")))
    split = (urlsplit(f"//{host}") for host in hosts)
    return [part.netloc if part.port else f"{part.netloc}:{port}" for part in split]


def say(line: str) -> None:
    print(line, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; bad usage exits with 2."""
    parser = argparse.ArgumentParser(
        description="A service that boots and clusters like an ElasticSearch node."
    )
    add = parser.add_argument
    add("--name", required=True)
    add("--host", required=True, help="own address: listened on and told to others")
    add("--port", type=int, default=9200)
    add(
        "--seed-hosts", default="", metavar="A,B:PORT", help="whom to ask for a cluster"
    )
    add("--seed-port", type=int, help="port of seed hosts without one; default: --port")
    add("--startup-time", type=float, default=2.0, metavar="SECONDS")
    add("--cluster-name", default="fake")
    add("--seed", type=int, help="make the uuid of a cluster founded here repeatable")
    args = parser.parse_args(argv)
    if not (math.isfinite(args.startup_time) and args.startup_time >= 0):
        parser.error(f"--startup-time {args.startup_time}: must be 0 or more seconds")
    try:
        args.seeds = addresses(args.seed_hosts, args.seed_port or args.port)
    except ValueError as error:
        parser.error(f"--seed-hosts {args.seed_hosts}: {error}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Boot, then serve until SIGTERM or SIGINT."""
    args = arguments(argv)
    born = time.monotonic()

    def sleep_until(share: float) -> None:
        time.sleep(max(0.0, born + share * args.startup_time - time.monotonic()))

    for number in (signal.SIGINT, signal.SIGTERM):  # that of SIGTERM tells of both
        signal.signal(number, lambda *_: sys.exit(0))  # PID 1 has no default action
    chance: random.Random = random.SystemRandom()
    if args.seed is not None:
        chance = random.Random(f"{args.seed} {args.name}")

    def new_uuid() -> str:
        return base64.urlsafe_b64encode(chance.randbytes(16)).decode().rstrip("=")

    node = Node(args.name, f"{args.host}:{args.port}", args.cluster_name)
    sleep_until(LISTENS)
    try:
        server = Server(args.host, args.port, node)
    except OSError as error:
        print(f"cannot listen on {node.address}: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say("listening")
    sleep_until(DISCOVERS)
    say(node.discover(args.seeds, new_uuid))
    sleep_until(1)
    node.ready = True
    say("ready")
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())

"""A gateway of etcd on loopback, with users, that fails in the ways seen in the field.

It keeps nothing: each call that is let in succeeds. `calls` is what was asked, in
order, with the token it came with.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from service_monitor.net.calls import Bounds
from service_monitor.stores.etcd.endpoints import Access, Endpoint
from service_monitor.stores.etcd.v3 import Etcd3Store

HEADER = {"header": {"revision": "7"}}
DENIED = {"message": "etcdserver: permission denied", "code": 7}
INVALID = {"message": "etcdserver: invalid auth token", "code": 16}
LOGIN = "/v3/auth/authenticate"
CANCELLED = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
OF_PATH = {
    "/v3/lease/keepalive": {"result": HEADER | {"TTL": "15"}},
    "/v3/lease/timetolive": HEADER | {"TTL": "12"},
    "/v3/kv/txn": HEADER | {"succeeded": True},
}


class Call(NamedTuple):
    path: str
    token: str | None


Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    gateway: Gateway
    protocol_version = "HTTP/1.1"
    body: Any

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with suppress(OSError):  # whoever asked did not wait for it
            self.gateway.serve(self)

    def reply(self, status: int, body: Any, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self, *messages: Any, hold: float = 0.0) -> None:
        """Send a watch's messages, and leave it open for so many seconds."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for message in messages:
            data = json.dumps(message).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.gateway.closing.wait(hold)
        self.wfile.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """End the connection without a word."""
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Gateway:
    """One etcd with users; `dead` answers whoever comes with a token that is not good.

    `before` may answer any call first, and says so by returning True.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.good: set[str] = set()
        self.dead: Reply = lambda handler: handler.reply(401, INVALID)
        self.before: Callable[[Handler], bool] = lambda handler: False
        self.closing = threading.Event()
        owner = self

        class Own(Handler):
            gateway = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        self.endpoint = Endpoint("http", "127.0.0.1", self._server.server_address[1])

    def store(self, bounds: Bounds | None = None, **access: Any) -> Etcd3Store:
        access = {"user": "u", "password": "s3cret", **access}
        return Etcd3Store([self.endpoint], Access(**access), bounds or Bounds())

    @property
    def logins(self) -> int:
        return sum(call.path == LOGIN for call in self.calls)

    def forget_tokens(self) -> None:
        """Be restarted: simple tokens are in memory only."""
        self.good.clear()

    def serve(self, handler: Handler) -> None:
        path, token = handler.path, handler.headers.get("Authorization")
        self.calls.append(Call(path, token))
        if self.before(handler):
            return
        if path == LOGIN:
            given = f"t{self.logins}"
            self.good.add(given)
            handler.reply(200, HEADER | {"token": given})
        elif token not in self.good:
            self.dead(handler)
        elif path == "/v3/watch":
            handler.stream({"result": {"created": True}}, hold=10)
        else:
            handler.reply(200, OF_PATH.get(path, HEADER))

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

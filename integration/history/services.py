"""The fake services of all nodes, which are healthy or not as they are told."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from integration.history.recorder import Recorder
from service_monitor.timing import now


class Services:
    """The fake services of all nodes: each answers 200 or 503, perhaps late."""

    def __init__(self, record: Recorder) -> None:
        self.healthy: set[str] = set()
        self.late: dict[str, float] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                began, path = now(), handler.path.strip("/")
                if late := self.late.get(path, 0.0):
                    time.sleep(late)
                ok = path in self.healthy
                if ok:
                    label, _, node = path.partition("/")
                    record("probe", label, node, began=began)
                handler.send_response(200 if ok else 503)
                handler.end_headers()

            def log_message(handler, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                pass  # a probe was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

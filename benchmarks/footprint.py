"""Measure what the commands cost when nothing happens.

    python -m benchmarks.footprint --rounds 20 --idle 30

The start of `hosts` beside `python -c "import requests"` in the same run; the memory of
an idle `watch`; and the raft proposals that it causes in etcd, from etcd's /metrics.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import click
import psutil

from benchmarks.handover import Service, counts
from integration.support.cli import CLI
from integration.support.etcd import start_etcd


def seconds(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


@click.command()
@click.option("--rounds", default=20, help="Starts of each command.")
@click.option("--idle", default=30.0, help="Seconds to watch an idle `watch`.")
def main(rounds: int, idle: float) -> None:
    """Measure start, memory and idle load."""
    hosts, bare = [], []
    with start_etcd() as etcd:
        label = ["--label=bench", "--store", etcd.url]
        for _ in range(rounds):
            hosts.append(seconds([*CLI, "hosts", *label]))
            bare.append(seconds([sys.executable, "-c", "import requests"]))
        service = Service()
        service.be_healthy()
        more = ["--service-id=a", f"--monitor-url={service.url}", "--log-level=error"]
        watch = subprocess.Popen([*CLI, "watch", *label, *more])
        try:
            time.sleep(3)
            before = counts(etcd)
            time.sleep(idle)
            after = counts(etcd)
            memory = psutil.Process(watch.pid).memory_info().rss
        finally:
            watch.terminate()
            watch.wait()
            service.close()
    middle, beside = statistics.median(hosts), statistics.median(bare)
    print(f"hosts, cold:      median {middle * 1000:.0f} ms")
    print(f"import requests:  median {beside * 1000:.0f} ms")
    print(f"ratio:            {middle / beside:.2f}")
    print(f"watch, memory:    {memory / 2**20:.1f} MiB resident")
    print(f"idle watch, in {idle:g} s:")
    for name in sorted(after):
        if after[name] - before.get(name, 0) or name == "raft":
            print(f"  {name}: {after[name] - before.get(name, 0):g}")


if __name__ == "__main__":
    main()

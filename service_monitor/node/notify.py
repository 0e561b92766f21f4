"""Tell systemd and the heartbeat file how it goes: ready, status, watchdog.

systemd is told by sd_notify(3), health checks by a file: each only where the user asked
for it. No report ever blocks, raises, or ends what it reports on.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Mapping

from service_monitor.text import printable

log = logging.getLogger(__name__)

QUEUED_FOR = 30.0
"""Seconds by which each look at the queue extends systemd's start timeout: enough
for several looks, each with a call that takes its whole timeout."""

_USEC = re.compile("[0-9]{1,18}", re.ASCII)


class Notifier:
    """Reports to $NOTIFY_SOCKET and to a heartbeat file; without either to nobody.

    `watchdog` is WatchdogSec of the unit in seconds, None if this process has none.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, heartbeat: str | None = None
    ) -> None:
        environ = environ or {}
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._heartbeat = heartbeat
        self._broken: set[str] = set()
        self._queues = False
        self.watchdog: float | None = None
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            limit = environ.get("WATCHDOG_USEC", "")
            self.watchdog = int(limit) / 1e6 if _USEC.fullmatch(limit) else None

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={printable(text)}")

    def queued(self, text: str) -> None:
        """Report a wait in the queue, so that systemd does not take it for a hang."""
        self.status(text)
        self._queues = True
        self.passing()

    def passing(self) -> None:
        """Report a sign of life between two calls of a look, once it queues."""
        if self._queues:
            self.extend(QUEUED_FOR)
            self.beat(QUEUED_FOR)

    def extend(self, seconds: float) -> None:
        """Ask systemd to let the start, or the stop, take `seconds` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def ready(self) -> None:
        """Report the first "up": units ordered after this one may start."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the stop has begun."""
        self._send("STOPPING=1")

    def beat(self, seconds: float) -> None:
        """Report that the work goes on; silence is fine for the next `seconds`.

        The file's time is set to the end of these, so its reader needs no other number.
        """
        if self.watchdog:
            self._send("WATCHDOG=1")
        if self._heartbeat is not None:
            until = time.time() + seconds
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK  # a pipe must not hang
                os.close(os.open(self._heartbeat, flags, 0o644))
                os.utime(self._heartbeat, (until, until))
            except OSError as error:
                self._complain(self._heartbeat, error)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), address)
        except BlockingIOError:
            pass  # systemd is busy; the next report tells as much
        except OSError as error:
            self._complain(self._address, error)

    def _complain(self, name: str, error: OSError) -> None:
        if name not in self._broken:
            log.warning("cannot report to %s: %s", name, error.strerror or error)
        self._broken.add(name)

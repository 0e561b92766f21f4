"""Ask a service once whether it is up, within one deadline for everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from service_monitor.errors import LocalLack, describe
from service_monitor.net.calls import Bounds, bounded
from service_monitor.net.connect import connect
from service_monitor.net.lacks import lack_in
from service_monitor.net.zones import carry_zone
from service_monitor.node.monitored import MonitoredURL
from service_monitor.node.tcp import LOOK, RESET, ended_by_peer
from service_monitor.text import printable
from service_monitor.timing import format_duration, now

if TYPE_CHECKING:
    import urllib3

MOST_READ = 64 * 1024
"""Bytes of a body that are read: a health page is short, and a bomb stays outside."""
LONGEST_REASON = 200
"""Characters of a reason that are kept: a server may write what it likes there."""


class Result(NamedTuple):
    """What one probe found; `reason` is for people."""

    ok: bool
    reason: str


class Probe(Protocol):
    """Anything that can be asked whether the service is up."""

    def __call__(self) -> Result:
        """Ask once, and block for the answer. Raises `Stopped`."""
        ...


@dataclass(frozen=True)
class Target:
    """What to probe, and how."""

    url: MonitoredURL
    timeout: float
    """Seconds for one probe, everything included."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets
    ca: str | None = None
    """The PEM bundle to check the certificate against; None: the system's."""
    insecure: bool = False
    """Whether the certificate is not checked at all."""


def new_probe(target: Target, bounds: Bounds) -> Probe:
    """Return the probe for the URL's scheme; it blocks up to the target's timeout."""
    ask = _Tcp(target).ask if target.url.scheme == "tcp" else _Http(target).ask
    return _Bounded(ask, target.timeout, bounds)


class _Bounded:
    """A probe of any kind, within its deadline: what fails there is a result, too."""

    def __init__(
        self, ask: Callable[[], Result], timeout: float, bounds: Bounds
    ) -> None:
        self._ask = ask
        self._timeout = timeout
        self._bounds = bounds

    def __call__(self) -> Result:
        try:
            ok, reason = bounded(self._ask, self._timeout, self._bounds, waits=True)
        except TimeoutError:
            ok, reason = False, f"no answer within {format_duration(self._timeout)}"
        except (LocalLack, OSError) as error:
            ok, reason = _failed(error)
        return Result(ok, printable(reason, LONGEST_REASON))


class _Tcp:
    """Up if the port accepts a connection, and keeps it for a moment."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def ask(self) -> Result:
        """Connect once; raises TimeoutError."""
        url, timeout = self._target.url, self._target.timeout
        deadline = now() + timeout
        try:
            with connect(url.host, url.port or 0, timeout) as sock:
                ended = ended_by_peer(sock, min(LOOK, (deadline - now()) / 2))
                return Result(ended is None, ended or "accepts connections")
        except TimeoutError:
            raise
        except ConnectionResetError:  # before we came to look
            return Result(False, RESET)
        except OSError as error:
            return _failed(error)


class _Http:
    """Up if the answer is a 2xx, to the end of its body."""

    def __init__(self, target: Target) -> None:
        import urllib3
        from requests.auth import HTTPBasicAuth

        from service_monitor.net.http import new_session

        # Checking certificates is off only where the user said so, and was warned.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        session = new_session(ca=target.ca, verify=not target.insecure)
        session.headers.update({"Connection": "close", "Accept": "*/*"})
        session.headers.update(target.headers)
        credentials = target.url.credentials
        session.auth = HTTPBasicAuth(*credentials) if credentials else None
        self._session = session
        self._url = carry_zone(target.url.bare)
        self._timeout = target.timeout

    def ask(self) -> Result:
        """Ask once; raises TimeoutError."""
        import requests
        import urllib3

        session = self._session
        session.close()  # the connection that a server kept in spite of "close"
        try:
            with session.get(
                self._url, timeout=self._timeout, allow_redirects=False, stream=True
            ) as answer:
                _read(answer.raw)
                reason = f"{answer.status_code} {answer.reason or ''}".strip()
                if answer.is_redirect:
                    reason += ", a redirect is not followed"
                return Result(200 <= answer.status_code < 300, reason)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise TimeoutError from None
        # OSError and ValueError: what the libraries do not wrap.
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return _failed(error)


def _failed(error: BaseException) -> Result:
    """Blame this machine where it is this one that lacks something."""
    return Result(False, str(lack_in(error) or describe(error)))


def _read(body: urllib3.BaseHTTPResponse) -> None:
    """Read it up to its end or `MOST_READ`; raises HTTPError if it breaks off."""
    left = MOST_READ
    while left > 0 and (part := body.read(left, decode_content=False)):
        left -= len(part)

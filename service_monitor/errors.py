"""What can go wrong: a type for each thing that the caller may do next.

Refused (someone else has it) and unknown (the store did not answer) are different
types: the first is an answer, after the second the write may or may not have happened.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from service_monitor.text import masked

if TYPE_CHECKING:
    from service_monitor.records import Record


class ServiceMonitorError(Exception):
    """Base of everything raised on purpose; `exit_code` is what the CLI ends with."""

    exit_code = 1


class ConfigError(ServiceMonitorError):
    """The command line, the environment or a store URL makes no sense."""

    exit_code = 2


class StoreError(ServiceMonitorError):
    """The store is of no use right now; exit code 69 is sysexits.h EX_UNAVAILABLE."""

    exit_code = 69


class StoreUnavailable(StoreError):
    """The store did not answer: whether a write took place is unknown."""


class StoreRefused(StoreError):
    """The store answered and will not serve us (credentials, permission, version)."""


class LocalLack(ServiceMonitorError):
    """This machine lacks what we need: threads, open files, memory, /proc.

    Neither the store nor the service is to blame. 71 is sysexits.h EX_OSERR.
    """

    exit_code = 71


class KeyExists(ServiceMonitorError):
    """`create` found a live record under its key."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.key} exists")
        self.record = record


class Conflict(ServiceMonitorError):
    """The record was changed by somebody else since it was read."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.key} was changed by somebody else")
        self.record = record


class RecordGone(ServiceMonitorError):
    """The record expired or was deleted (perhaps made anew since)."""


class AcquireTimeout(ServiceMonitorError):
    """The lease was not granted within the acquire timeout."""


class IdInUse(AcquireTimeout):
    """The service id is in use on another host: no start is allowed."""


class Replaced(ServiceMonitorError):
    """Another process with the same service id took over this one's ticket."""


class LeaseLost(ServiceMonitorError):
    """The lease ended before the command could be started."""


class CannotStart(ServiceMonitorError):
    """The command cannot be executed; 126 and 127 are the shell's codes for it."""

    def __init__(self, name: str, why: str, code: int) -> None:
        super().__init__(f"cannot start {name!r}: {why}")
        self.why = why
        self.exit_code = code


class WaitTimeout(ServiceMonitorError):
    """Fewer hosts than asked for were up when the wait ended."""


class HeldByAnother(ServiceMonitorError):
    """The lease to release is not the acquisition that was named."""


class StillLives(ServiceMonitorError):
    """What is to be forgotten is registered, queues, or was written to meanwhile."""


class Stopped(ServiceMonitorError):
    """A signal asked this process to end."""


def describe(error: BaseException) -> str:
    """Say in a few words why a connection failed: the innermost cause, no addresses."""
    seen = [error]
    while (cause := _cause(seen[-1])) is not None and cause not in seen:
        seen.append(cause)
    cause = seen[-1]
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, socket.gaierror):
        return "host name not found"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if verified := getattr(cause, "verify_message", None):  # of an ssl.SSLError
        return f"certificate not accepted: {verified}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if type(cause).__name__ == "BadStatusLine":  # of http.client, which is slow
        return _no_http(str(cause))
    return _words(cause)


def _no_http(line: str) -> str:
    """Quote what came in place of an answer's first line."""
    if line.startswith(("\x15\x03", r"'\x15\x03")):  # an alert
        return "it speaks TLS: write https:// for it"
    text = masked(" ".join(line.split()))[:200]
    return f"no HTTP answer: {text}" if text else "no HTTP answer"


_TRUSTED = {
    "botocore.parsers.ResponseParserError",
    "http.client.HTTPException",
    "service_monitor.errors.ServiceMonitorError",
    "urllib3.exceptions.HTTPError",
}
"""Errors whose texts speak of answers and connections."""
_QUOTING = {
    "http.client.InvalidURL",
    "urllib3.exceptions.HostChangedError",
    "urllib3.exceptions.LocationValueError",
}
"""Those among them that quote what was to be sent."""


def _words(error: BaseException) -> str:
    """Return the text of an error unless it may quote a request, with its password."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    system = isinstance(error, OSError) and type(error).__module__ == "builtins"
    if (system or kinds & _TRUSTED) and not kinds & _QUOTING:
        text = masked(" ".join(str(error).split()))
        return text[:200] or type(error).__name__
    return f"{type(error).__name__}, whose text may quote what was sent: not shown"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error, all that it wraps or was caused by, and what was handled then."""
    seen: set[int] = set()
    found = [error]
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # Where urllib3, botocore and python-etcd keep what they wrap.
        more = getattr(each, "kwargs", None)
        inner = more.get("error") if isinstance(more, dict) else None
        reason, cause = (getattr(each, name, None) for name in ("reason", "cause"))
        around = (inner, reason, cause, *each.args, each.__cause__, each.__context__)
        found.extend(e for e in around if isinstance(e, BaseException))


def _cause(error: BaseException) -> BaseException | None:
    """Return what an exception of urllib3 or requests wraps, if it says more."""
    inner = getattr(error, "reason", None)
    for candidate in (inner, *error.args, error.__cause__):
        if isinstance(candidate, BaseException):
            return candidate
    # What was being handled then: worth it for the system's own words alone.
    return error.__context__ if isinstance(error.__context__, OSError) else None

"""Credentials of AWS, checked before a library puts them into a header.

Where that fails its error quotes them, and looks like one of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service_monitor.errors import ConfigError, StoreRefused
from service_monitor.net.credentials import NOT_SHOWN, is_plain
from service_monitor.text import hide

_IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TOKENS = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_ELSEWHERE = ("AWS_CONTAINER_AUTHORIZATION_TOKEN",)
_NAMES = {
    "access_key": "the access key",
    "secret_key": "the secret key",
    "token": "the session token",
}
_WRONG = "holds a blank or a control character, such as a line end"


def check_environment(environ: Mapping[str, str], profile: str | None) -> None:
    """Refuse what cannot be sent; a profile named in the URL takes their place.

    Raises `ConfigError`, which shows nothing of them.
    """
    names = _ELSEWHERE if profile else (*_IDENTITY, *_TOKENS, *_ELSEWHERE)
    for name in names:
        value = environ.get(name, "")
        if name != "AWS_ACCESS_KEY_ID":
            hide(value)
        if not is_plain(value):
            raise ConfigError(f"{name} {_WRONG}: set it anew ({NOT_SHOWN})")


def check_to_be_sent(credentials: Any) -> None:
    """Refuse credentials that came from elsewhere: a file, a process, a service.

    Raises `StoreRefused`, which shows nothing of them.
    """
    if credentials is None:  # botocore says so
        return
    hide(credentials.secret_key, credentials.token)
    for name in _NAMES:
        if not is_plain(getattr(credentials, name)):
            raise StoreRefused(
                f"AWS credentials: {_NAMES[name]} {_WRONG}: mend the file, process or "
                f"service that it comes from ({NOT_SHOWN})"
            )

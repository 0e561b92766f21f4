"""Who we are to etcd: from the store's URL, a file or the ETCDCTL_ variables."""

from __future__ import annotations

from collections.abc import Mapping

from service_monitor.errors import describe
from service_monitor.net.credentials import check_text
from service_monitor.net.lacks import lack_in
from service_monitor.text import hide, quoted

_LONGEST = 4096
"""Characters of a password in a file."""


def read_credentials(
    user: str | None,
    password: str,
    file: str | None,
    environ: Mapping[str, str],
) -> tuple[str | None, str | None]:
    """Return the user and password that a URL, a file or the variables name.

    `user` and `password` are the URL's, `file` is that of its password-file. Raises
    ValueError, which shows nothing of the password, and `LocalLack`.
    """
    where = "what stands before the @"
    if user is None:
        where = "ETCDCTL_USER"
        user, _, password = environ.get(where, "").partition(":")
    hide(password, user=user)
    for part in user, password:
        check_text(where, part)
    if file is not None:
        if not user or password:
            raise ValueError("needs a user, and no password, beside its password-file")
        password = _password_in(file)
        hide(password, user=user)
        check_text(file, password)
        return user, password
    if not user:
        return None, None
    if not password:
        password = environ.get("ETCDCTL_PASSWORD", "")
        hide(password, user=user)
        check_text("ETCDCTL_PASSWORD", password)
    if not password:
        raise ValueError(
            f"has no password for {quoted(user)}: set ETCDCTL_PASSWORD, or "
            "?password-file=FILE"
        )
    return user, password


def _password_in(path: str) -> str:
    """Read a password from a file of one line, whose end does not belong to it."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            password = file.read(_LONGEST + 1).removesuffix("\n")
    except OSError as error:
        if lack := lack_in(error):
            raise lack from error
        raise ValueError(f"has no password in {path}: {describe(error)}") from None
    except UnicodeDecodeError:  # which quotes what it could not decode
        raise ValueError(f"has no password in {path}: not UTF-8") from None
    if not 0 < len(password) <= _LONGEST:
        raise ValueError(f"has no password in {path}: empty or too long")
    if "\n" in password:
        raise ValueError(f"has no password in {path}: more than one line")
    return password

"""Check TLS files before anything is sent: a wrong one would fail every call anew."""

from __future__ import annotations

import os.path

from service_monitor.net.lacks import lack_in


def check_tls(ca: str | None, cert: tuple[str, str] | None = None) -> None:
    """Read a bundle of CAs, and a client's certificate and key, as a connection would.

    Raises ValueError, which names the file, and `LocalLack`.
    """
    import ssl  # slow, and only for who uses it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in (ca, *(cert or ())):
        if path and not os.path.isfile(path):
            raise ValueError(f"no such file: {path}")
    try:
        if ca:
            context.load_verify_locations(ca)
    except OSError as error:  # ssl's own errors are of this kind
        if lack := lack_in(error):
            raise lack from error
        raise ValueError(f"{ca} holds no PEM certificate ({_why(error)})") from None
    try:
        if cert:  # a password would be asked for in the middle of a call
            context.load_cert_chain(*cert, password=lambda: b"")
    except OSError as error:
        if lack := lack_in(error):
            raise lack from error
        raise ValueError(
            f"{' and '.join(cert or ())} are no PEM certificate with its unencrypted "
            f"key ({_why(error)})"
        ) from None


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", None) or "unreadable"
    return str(reason).replace("_", " ").lower()

"""TLS files are checked before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from integration.support.certificates import Certificates
from service_monitor.net.tls import check_tls


def test_accepts_what_is_in_order(certificates: Certificates) -> None:
    """Nobody could use TLS."""
    check_tls(None)
    check_tls(certificates.ca, (certificates.cert, certificates.key))


def test_names_the_file_that_is_missing(certificates: Certificates) -> None:
    """acquire-lease would wait out its timeout for a typing error."""
    with pytest.raises(ValueError, match=r"no such file: /nowhere/ca\.pem"):
        check_tls("/nowhere/ca.pem")
    with pytest.raises(ValueError, match="no such file: /nowhere/key"):
        check_tls(None, (certificates.cert, "/nowhere/key"))


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"# no certificate\n"])
def test_refuses_a_bundle_without_certificates(tmp_path: Path, content: bytes) -> None:
    """Every probe would fail for a reason that is not the service's."""
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content)
    with pytest.raises(ValueError, match=r"holds no PEM certificate \([a-z ]+\)"):
        check_tls(str(bundle))


def test_refuses_a_key_of_another_certificate(
    certificates: Certificates, strangers: Certificates
) -> None:
    """A mix-up would show only as a handshake that fails."""
    with pytest.raises(ValueError, match=r"unencrypted key \(key values mismatch\)"):
        check_tls(None, (certificates.cert, strangers.key))
    with pytest.raises(ValueError, match=r"unencrypted key \(unreadable\)"):
        check_tls(None, (certificates.ca, __file__))


def test_refuses_a_key_behind_a_password(
    certificates: Certificates, tmp_path: Path
) -> None:
    """OpenSSL would ask for it on the terminal, and a service unit has none."""
    key = serialization.load_pem_private_key(
        Path(certificates.key).read_bytes(), password=None
    )
    encrypted = tmp_path / "key.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    with pytest.raises(ValueError, match="unencrypted key"):
        check_tls(None, (certificates.cert, str(encrypted)))

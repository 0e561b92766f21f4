"""TLS, client certificates, users and roles, on real secured etcds of both APIs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from integration.etcd import Etcd, start_etcd
from service_monitor.calls import Stop
from service_monitor.errors import StoreError, StoreRefused, StoreUnavailable
from service_monitor.stores import open_store

PASSWORD = "hush hush"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    folder.chmod(0o755)  # etcd's image may run as another user
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other-ca.pem"))
    server = authority.issue_cert("127.0.0.1", "localhost", "etcd")
    client = authority.issue_cert("client@example.org")
    for name, issued in (("server", server), ("client", client)):
        issued.private_key_pem.write_to_path(str(folder / f"{name}-key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    return folder


@pytest.fixture(scope="module")
def tls_etcd(certs: Path) -> Iterator[Etcd]:
    with start_etcd(certs=certs, client_cert_auth=True) as server:
        yield server


@pytest.fixture(scope="module")
def user_etcd() -> Iterator[Etcd]:
    with start_etcd() as server:
        server.enable_auth("root", PASSWORD)
        yield server


@pytest.fixture(params=["etcd", "etcd2"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def works(url: str, label: str, environ: dict[str, str]) -> None:
    store = open_store(url, Stop(), environ)
    try:
        record = store.create(f"{label}/a", "1", 30)
        record = store.update(record, "2", 30)
        assert store.list(f"{label}/").records[0].version == record.version
        store.wait(f"{label}/", store.list(f"{label}/"), 0.2)
        store.keep_alive(record, 30)
    finally:
        store.close()


def fails(url: str, environ: dict[str, str], error: type[StoreError]) -> str:
    store = open_store(url, Stop(), environ)
    try:
        with pytest.raises(error) as failed:
            store.list("x/")
    finally:
        store.close()
    return str(failed.value)


def test_client_certificates_by_url_and_by_environment(
    tls_etcd: Etcd, certs: Path, scheme: str, label: str
) -> None:
    """A secured etcd could not be used, or not as etcdctl's users have it set."""
    base = f"{scheme}s://{tls_etcd.endpoint}"
    ca, cert, key = (certs / f"{n}.pem" for n in ("ca", "client", "client-key"))
    works(f"{base}?ca={ca}&cert={cert}&key={key}", label, {})
    environ = {
        "ETCDCTL_CACERT": str(ca),
        "ETCDCTL_CERT": str(cert),
        "ETCDCTL_KEY": str(key),
    }
    works(base, f"{label}-2", environ)


def test_a_wrong_authority_is_not_trusted(
    tls_etcd: Etcd, certs: Path, scheme: str
) -> None:
    """Anybody on the network could pass for the store."""
    url = f"{scheme}s://{tls_etcd.endpoint}?ca={certs / 'other-ca.pem'}"
    assert "certificate" in fails(url, {}, StoreUnavailable)
    url = f"{scheme}s://{tls_etcd.endpoint}"
    assert "certificate" in fails(url, {}, StoreUnavailable)


def test_without_a_client_certificate_nothing_is_served(
    tls_etcd: Etcd, certs: Path, scheme: str
) -> None:
    """A missing setting would hang instead of telling."""
    url = f"{scheme}s://{tls_etcd.endpoint}?ca={certs / 'ca.pem'}"
    fails(url, {}, StoreUnavailable)


def test_a_user_with_a_password_works(user_etcd: Etcd, scheme: str, label: str) -> None:
    """An etcd with users could not be used."""
    base = f"{scheme}://root@{user_etcd.endpoint}"
    works(base, label, {"ETCDCTL_PASSWORD": PASSWORD})
    works(
        f"{scheme}://{user_etcd.endpoint}",
        f"{label}-2",
        {"ETCDCTL_USER": f"root:{PASSWORD}"},
    )


def test_a_wrong_password_is_refused_and_not_shown(
    user_etcd: Etcd, scheme: str
) -> None:
    """The password would stand in the log of every failed start."""
    environ = {"ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": "s3cret"}
    said = fails(f"{scheme}://{user_etcd.endpoint}", environ, StoreRefused)
    assert "s3cret" not in said


def test_an_expired_token_is_renewed(user_etcd: Etcd, label: str) -> None:
    """A waiter would fail five minutes after it began."""
    url = f"etcd://root@{user_etcd.endpoint}"
    store = open_store(url, Stop(), {"ETCDCTL_PASSWORD": PASSWORD})
    snapshot = store.list(f"{label}/")
    store._token = "expired.1"  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="invalid auth token"):
        store.wait(f"{label}/", snapshot, 0.5)  # the waiter then looks again
    assert store.list(f"{label}/").records == ()
    store.wait(f"{label}/", snapshot, 0.5)
    store.close()

"""TLS, client certificates, users and roles, on real secured etcds of both APIs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from integration.faults.processes import Command, Commands
from integration.support.documents import ROOT, sections
from integration.support.etcd import Etcd, etcd_program, start_etcd
from integration.support.loopback import Loopback, answering, status
from service_monitor.errors import StoreError, StoreRefused
from service_monitor.net.calls import Bounds
from service_monitor.records import Record, Snapshot
from service_monitor.stores.base import Store
from service_monitor.stores.opening import open_store
from service_monitor.timing import now

PASSWORD = "hush hüsh €"
SOON = 20.0
"""Seconds within which a command on a healthy etcd is done; a bound."""


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
    store = open_store(url, Bounds(), environ)
    try:
        record = store.create(f"{label}/a", "1", 30)
        record = store.update(record, "2", 30)
        assert store.list(f"{label}/").records[0].version == record.version
        store.wait(f"{label}/", store.list(f"{label}/"), 0.2)
        store.keep_alive(record, 30)
    finally:
        store.close()


def fails(url: str, environ: dict[str, str], error: type[StoreError]) -> str:
    store = open_store(url, Bounds(), environ)
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
    assert "certificate" in fails(url, {}, StoreRefused)
    url = f"{scheme}s://{tls_etcd.endpoint}"
    assert "certificate" in fails(url, {}, StoreRefused)


def test_without_a_client_certificate_nothing_is_served(
    tls_etcd: Etcd, certs: Path, scheme: str
) -> None:
    """A missing setting would hang instead of telling."""
    url = f"{scheme}s://{tls_etcd.endpoint}?ca={certs / 'ca.pem'}"
    assert "client certificate" in fails(url, {}, StoreRefused)


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


CALLS: dict[str, Callable[[Store, Record, str], object]] = {
    "range": lambda store, record, label: store.list(f"{label}/"),
    "grant and txn": lambda store, record, label: store.create(f"{label}/b", "1", 30),
    "txn": lambda store, record, label: store.update(record, "2", None),
    "delete": lambda store, record, label: store.delete(record),
    "grant": lambda store, record, label: store.prepare(30),
    "keepalive": lambda store, record, label: store.keep_alive(record, 30),
    "timetolive": lambda store, record, label: store.time_left(record),
}


@pytest.fixture(scope="module")
def forgetful_etcd() -> Iterator[Etcd]:
    """Give an etcd with users, whose tokens end when it is restarted."""
    with start_etcd() as server:
        server.enable_auth("root", PASSWORD)
        yield server


@pytest.mark.parametrize("call", CALLS)
def test_a_token_that_a_restart_ended_is_renewed(
    forgetful_etcd: Etcd, label: str, call: str
) -> None:
    """After an upgrade of etcd every node would have to be restarted too."""
    url = f"etcd://root@{forgetful_etcd.endpoint}"
    with closing(open_store(url, Bounds(), {"ETCDCTL_PASSWORD": PASSWORD})) as store:
        record = store.create(f"{label}/a", "1", 30)
        forgetful_etcd.restart()
        CALLS[call](store, record, label)


def test_an_expired_token_is_renewed(forgetful_etcd: Etcd, label: str) -> None:
    """A waiter would fail five minutes after it began: etcd 3.5 answers the watch of a
    token that it does not know with "permission denied"."""
    url = f"etcd://root@{forgetful_etcd.endpoint}"
    with closing(open_store(url, Bounds(), {"ETCDCTL_PASSWORD": PASSWORD})) as store:
        snapshot = store.list(f"{label}/")
        forgetful_etcd.restart()
        begun = now()
        store.wait(f"{label}/", snapshot, 1.5)
        assert 1.2 < now() - begun < SOON
        store.create(f"{label}/a", "1", 30)
        begun = now()
        store.wait(f"{label}/", snapshot, SOON)
        assert now() - begun < SOON / 2


def test_a_watch_that_may_not_be_is_refused(role_etcd: Etcd, label: str) -> None:
    """A missing role would look like an outage: the waiter would wait for nothing."""
    url = f"etcd://service_monitor@{role_etcd.endpoint}/other"
    with (
        closing(open_store(url, Bounds(), {"ETCDCTL_PASSWORD": PASSWORD})) as store,
        pytest.raises(StoreRefused, match=r"permission denied.*readwrite on /other/"),
    ):
        store.wait(f"{label}/", Snapshot((), 1), SOON)


def test_a_certificate_that_names_a_user_is_explained(tmp_path: Path) -> None:
    """etcd's gateway refuses who comes with a Common Name once there are users: a start
    would wait to its timeout, and nobody learn why (etcd#17025)."""
    tmp_path.chmod(0o755)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    named = authority.issue_cert("client@example.org", common_name="root")
    nameless = authority.issue_cert("client@example.org")
    server = authority.issue_cert("127.0.0.1")
    for name, issued in {"server": server, "client": nameless, "cn": named}.items():
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}-key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    with start_etcd(certs=tmp_path, client_cert_auth=True) as etcd:
        etcd.enable_auth("root", PASSWORD)

        def url(name: str) -> str:
            cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem"
            ca = tmp_path / "ca.pem"
            return f"etcds://root@{etcd.endpoint}?ca={ca}&cert={cert}&key={key}"

        environ = {"ETCDCTL_PASSWORD": PASSWORD}
        said = fails(url("cn"), environ, StoreRefused)
        assert "CommonName of client" in said
        assert "without a Common Name" in said
        works(url("client"), "x", environ)


def test_a_gateway_that_is_off_is_explained() -> None:
    """An etcd that is new enough would be said to be too old (etcd#12093)."""
    with start_etcd(["--enable-grpc-gateway=false"]) as etcd:
        said = fails(f"etcd://{etcd.endpoint}", {}, StoreRefused)
    assert "HTTP 404" in said
    assert "enable-grpc-gateway: true" in said


def test_the_wrong_kind_of_port_is_refused(
    user_etcd: Etcd, tls_etcd: Etcd, scheme: str
) -> None:
    """`etcd://` for `etcds://` and the reverse would look like a network fault, and a
    start wait to its timeout."""
    said = fails(f"{scheme}s://{user_etcd.endpoint}", {}, StoreRefused)
    assert f"it speaks no TLS: use {scheme}://" in said
    said = fails(f"{scheme}://{tls_etcd.endpoint}", {}, StoreRefused)
    assert f"it speaks TLS: use {scheme}s://" in said


# Roles


@pytest.fixture(scope="module")
def role_etcd() -> Iterator[Etcd]:
    """Give an etcd set up as the documents say, and with a user who may only read."""
    with start_etcd() as server:
        for version in "3", "2":
            page = sections((ROOT / "docs/security.md").read_text(), "### ")
            lines = re.findall("^    (etcdctl .*)$", page[f"etcd v{version}"], re.M)
            own = [line for line in lines if "service_monitor" in line]
            names = re.compile(r"(?<![/'])service_monitor(?![/*])")
            read = [names.sub("reader", x.replace("readwrite", "read")) for x in own]
            for line in [*read, *lines]:
                command = f"{etcd_program('etcdctl')}{line.removeprefix('etcdctl')}"
                environ = {
                    "PATH": os.environ["PATH"],
                    "ETCDCTL_API": version,
                    "ETCDCTL_ENDPOINTS": server.base_url,
                }
                done = subprocess.run(
                    command,
                    shell=True,
                    env=environ,
                    input=f"{PASSWORD}\n" * 2,
                    capture_output=True,
                    text=True,
                    timeout=SOON,
                )
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        yield server


@pytest.fixture
def run(role_etcd: Etcd, scheme: str, label: str, tmp_path: Path) -> Iterator[Commands]:
    """Start commands as the user that the documents speak of."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    place = f"service_monitor@{role_etcd.endpoint}?password-file={file}"
    with Commands(f"{scheme}://{place}", label) as run:
        yield run
        for command in run.started:
            assert PASSWORD not in command.stderr


def done(command: Command) -> str:
    """Wait for its success, and give what it printed."""
    assert command.wait(SOON) == 0, command
    return command.stdout.strip()


def queued(run: Commands, name: str) -> Command:
    command = run("acquire-lease", f"--service-id={name}", f"--host={name}")
    command.wait_said("waiting, position", SOON)
    return command


def test_the_documented_role_is_enough_for_every_command(
    run: Commands, label: str
) -> None:
    """An operator would have to find out by trial what to grant, or grant it all."""
    with closing(Loopback(answering(status("200 OK")))) as service:
        done(run("acquire-lease", "--service-id=a", "--host=a"))
        second = queued(run, "b")
        own = ("--service-id=a", "--host=a", f"--monitor-url={service.url}")
        watch = run("watch", *own)
        done(second)
        assert done(run("hosts")) == "a"
        third = queued(run, "c")
        done(run("release-lease", "--service-id=b"))
        done(third)
        assert label.lower() in done(Command("status", f"--store={run.store}"))
        watch.term()
        done(watch)
    assert "cannot deregister" not in watch.stderr
    assert done(run("hosts")) == ""
    done(run("release-lease", "--service-id=c"))


def test_the_documented_reader_may_look_and_no_more(run: Commands) -> None:
    """Whoever is to see the queue would have to be trusted with it."""
    done(run("acquire-lease", "--service-id=a", "--host=a"))
    run.store = run.store.replace("service_monitor@", "reader@")
    assert done(run("hosts")) == ""
    assert " a " in done(run("status"))
    release = run("release-lease", "--service-id=a")
    assert release.wait(SOON) == 69, release
    assert " a " in done(run("status"))


@pytest.mark.parametrize("command", ["hosts", "status", "release-lease"])
def test_another_prefix_is_refused_in_one_line(run: Commands, command: str) -> None:
    """A mistake in the URL or the role would look like an outage, or like "no host"."""
    refused = run(command, store=run.store.replace("?", "/other?"))
    assert refused.wait(SOON) == 69, refused
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("service-monitor: the store refuses us: ")
    assert "/other" in refused.stderr


def test_a_lease_under_another_prefix_is_not_had(run: Commands) -> None:
    """The start script would go on without its turn, or never learn why it waits."""
    options = ("--service-id=a", "--host=a")
    refused = run("acquire-lease", *options, store=run.store.replace("?", "/other?"))
    assert refused.wait(SOON) == 69, refused
    assert "/other" in refused.stderr.splitlines()[-1]

"""What this machine lacks is neither an outage of the store nor a full disk."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from integration.support.certificates import Certificates
from integration.support.commands import HANG, Run, by_python, ended, environment
from integration.support.limits import no_files_left, use_up_threads
from integration.support.loopback import Serve, unused_port
from service_monitor.errors import CannotStart, LocalLack, StoreUnavailable
from service_monitor.net.calls import Bounds
from service_monitor.net.lacks import lack_in
from service_monitor.node.child import Child
from service_monitor.stores.endpoint import Endpoint
from service_monitor.stores.etcd.place import Access
from service_monitor.stores.etcd.v3 import Etcd3Store
from service_monitor.stores.sqlite.store import SqliteStore

FILES = "this machine lacks open files: raise LimitNOFILE="


def wrapped(error: BaseException) -> BaseException:
    """Give it as libraries do: in an error of a connection, in another one."""
    import urllib3

    pool = urllib3.HTTPConnectionPool("h")
    inner = urllib3.exceptions.NewConnectionError(pool, "failed")  # type: ignore[arg-type]
    inner.__cause__ = error
    return urllib3.exceptions.MaxRetryError(pool, "/", inner)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EMFILE, "x"), "ulimit -n"),
        (OSError(errno.ENFILE, "x"), "fs.file-max"),
        (OSError(errno.ENOMEM, "x"), "MemoryMax="),
        (MemoryError(), "MemoryMax="),
        (BlockingIOError(errno.EAGAIN, "fork"), "TasksMax="),
        (RuntimeError("can't start new thread"), "--pids-limit"),
    ],
)
def test_a_lack_is_found_whatever_wraps_it(error: Exception, says: str) -> None:
    """It would be called an outage of the store, and the store be mended."""
    for each in error, wrapped(error):
        lack = lack_in(each)
        assert lack is not None
        assert lack.exit_code == 71
        assert str(lack).startswith("this machine lacks ")
        assert says in str(lack)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "x"),
        TimeoutError("timed out"),
        socket.gaierror(socket.EAI_NONAME, "not known"),
        RuntimeError("a mistake of ours"),
        OSError(errno.ENOSPC, "disk full"),
    ],
)
def test_what_others_do_wrong_is_no_lack(error: Exception) -> None:
    """An outage would be looked for on this machine."""
    assert lack_in(error) is None
    assert lack_in(wrapped(error)) is None


def test_a_resolver_without_a_file_is_a_lack() -> None:
    """A name that is well known would be looked for in DNS."""
    with no_files_left():
        assert lack_in(socket.gaierror(socket.EAI_AGAIN, "try again"))


# the stores and the probe, without a file to open


@pytest.mark.parametrize("scheme", ["etcd", "etcd2", "dynamodb", "sqlite"])
@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_one_look_without_a_file_left_ends_with_71(
    run: Run,
    path: Path,
    scheme: str,
    spare: int,
    monkeypatch: pytest.MonkeyPatch,
    serve: Serve,
) -> None:
    """It was exit 69, and the operator looked at a store that was fine."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "aaaaaa")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ssssss")
    port = unused_port()
    store = {
        "sqlite": f"sqlite://{path}",
        "dynamodb": f"dynamodb://table?region=r&endpoint=http://127.0.0.1:{port}",
    }.get(scheme, f"{scheme}://127.0.0.1:{port}")
    run("hosts", "--label=es", f"--store={store}")  # imports what it needs
    with no_files_left(spare):
        code, out, err = run("hosts", "--label=es", f"--store={store}")
    if code == 71:
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"service-monitor: {FILES}")
    else:  # there were enough of them
        assert spare
        assert code == (0 if scheme == "sqlite" else 69)


@pytest.mark.parametrize("kind", ["ca", "cert"])
def test_a_certificate_that_cannot_be_opened_is_not_called_wrong(
    run: Run, certificates: Certificates, kind: str
) -> None:
    """It was exit 2: systemd's RestartPreventExitStatus would keep a unit down."""
    files = {"ca": f"ca={certificates.ca}"}
    files["cert"] = f"cert={certificates.cert}&key={certificates.key}"
    store = f"etcds://127.0.0.1:1?{files[kind]}"
    run("hosts", "--label=es", f"--store={store}")
    with no_files_left():
        code, _, err = run("hosts", "--label=es", f"--store={store}")
    assert (code, err.count("\n")) == (71, 1)
    assert FILES in err


def test_a_password_file_that_cannot_be_opened_is_not_called_wrong(
    run: Run, tmp_path: Path
) -> None:
    """The operator would look at its rights."""
    (tmp_path / "p").write_text("secret")
    store = f"etcd://u@127.0.0.1:1?password-file={tmp_path}/p"
    run("hosts", "--label=es", f"--store={store}")
    with no_files_left():
        code, _, err = run("hosts", "--label=es", f"--store={store}")
    assert (code, err.count("\n")) == (71, 1)
    assert FILES in err


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_a_probe_without_a_file_says_whose_fault_it_is(
    scheme: str,
) -> None:
    """The service would be restarted for what its watch lacks."""
    from service_monitor.node.monitored import read_monitored_url
    from service_monitor.node.probe import Target, new_probe

    # No thread of ours may close a file meanwhile, so nobody accepts.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        probe = new_probe(Target(read_monitored_url(url), HANG), Bounds())
        with no_files_left():
            result = probe()
    assert not result.ok
    assert result.reason.startswith(FILES)


@pytest.mark.parametrize("profile", ["", "&profile=p"])
def test_credentials_that_cannot_be_opened_are_not_called_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """boto3 forgets why: an operator would look for credentials that are there."""
    file = tmp_path / "credentials"
    keys = "aws_access_key_id = a\naws_secret_access_key = s\n"
    file.write_text(f"[default]\n{keys}[p]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    store = f"dynamodb://table?region=r&endpoint=http://127.0.0.1:{unused_port()}"
    run("hosts", "--label=es", f"--store={store}{profile}")  # imports what it needs
    with no_files_left():
        code, out, err = run("hosts", "--label=es", f"--store={store}{profile}")
    assert (code, out, err.count("\n")) == (71, "", 1)
    assert FILES in err


def test_a_database_without_memory_is_not_away(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback: Python has no error of SQLite for it."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service_monitor.stores.sqlite.store.read_rows", fail)
    with pytest.raises(LocalLack, match="this machine lacks memory"):
        SqliteStore(str(path), Bounds()).list("es/")


def test_an_open_database_is_used_on_without_a_file(path: Path) -> None:
    """A lack must pass by itself."""
    store = SqliteStore(str(path), Bounds())
    with no_files_left(), pytest.raises(LocalLack, match="open files"):
        store.list("")
    assert store.list("").records == ()
    store.close()


def test_a_database_that_cannot_be_opened_is_still_the_databases_fault(
    tmp_path: Path,
) -> None:
    """A file without rights would be taken for a limit."""
    store = SqliteStore(str(tmp_path / "no" / "s.db"), Bounds())
    with pytest.raises(StoreUnavailable, match="unable to open"):
        store.list("")


# threads and processes


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    use_up_threads(monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "hosts --label=es",
        "status",
        "release-lease --label=es",
        "forget --label=es --service-id=a",
    ],
)
def test_one_look_without_a_thread_ends_with_71(
    run: Run, no_threads: None, command: str
) -> None:
    """It was exit 69: an outage that nobody else saw."""
    code, out, err = run(*command.split(), "--store=etcd://127.0.0.1:1")
    assert (code, out, err.count("\n")) == (71, "", 1)
    assert err.startswith("service-monitor: this machine lacks threads or processes: ")


def test_a_store_is_closed_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that was acquired would be exit 71, and hold up the others."""
    endpoint = Endpoint("http", "127.0.0.1", unused_port())
    store = Etcd3Store([endpoint], Access(), Bounds())
    with pytest.raises(StoreUnavailable):
        store.create("k", "v", 15)  # there may be a lease now, to be given back
    use_up_threads(monkeypatch)
    store.close()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_command_that_cannot_be_forked_is_not_called_broken(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It was exit 126, as of a file that is not executable."""

    def spawn(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_spawn", spawn)
    with pytest.raises(LocalLack):
        Child(("true",), {}, lambda _: None)


def test_a_command_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    """126 and 127 are what every shell has for it."""
    with pytest.raises(CannotStart) as failed:
        Child((str(tmp_path / "no"),), {}, lambda _: None)
    assert failed.value.exit_code == 127


UNDER = """
import resource, sys
from service_monitor.__main__ import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))
main()
"""


def test_no_limit_of_files_is_an_outage_or_a_crash(path: Path) -> None:
    """At some limit or other it would be said that the store is down."""
    codes = []
    for limit in range(4, 12):
        cli = by_python(UNDER.format(limit))
        code, _, err = ended(["hosts", "--label=es"], environment(path), cli=cli)
        codes.append(code)
        assert "Traceback" not in err
        if code == 71:
            assert err.startswith(f"service-monitor: {FILES}")
    assert set(codes) == {0, 71}
    assert codes == sorted(codes, reverse=True)

"""Real processes keep what they are told: not in logs, errors, records or `ps`."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from integration.support.commands import (
    Run,
    by_python,
    ended,
    environment,
    finish,
    is_up,
    started,
    wait_until,
)
from integration.support.loopback import (
    Serve,
    Talk,
    answering,
    read_message,
    status,
    unused_port,
)
from service_monitor.net.stop import Stop
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Target
from service_monitor.stores.base import Store

SECRET = "s3cret/ü"
SERVICE_SECRET = "p@ss"
TOKEN = "t0ken"


def forms(secret: str) -> list[bytes]:
    """Write a secret in each way in which a request may carry it."""
    codes = (f"{user}{secret}".encode() for user in ("", "user:"))
    quoted = (quote(secret, safe=""), json.dumps(secret)[1:-1], ascii(secret)[1:-1])
    texts = [secret.encode(), *(text.encode() for text in quoted)]
    return [*texts, *map(base64.b64encode, codes)]


def assert_untold(*places: str | bytes) -> None:
    for secret in SECRET, SERVICE_SECRET, TOKEN:
        for place in places:
            where = place.encode() if isinstance(place, str) else place
            assert not [form for form in forms(secret) if form in where], place


def command_line(running: subprocess.Popen[str]) -> bytes:
    return Path(f"/proc/{running.pid}/cmdline").read_bytes()


# A store's password, from wherever it may come


def from_file(url: str, folder: Path) -> dict[str, str]:
    (folder / "password").write_text(f"{SECRET}\n")
    where = f"{url.replace('//', '//user@')}?password-file={folder}/password"
    return {"SERVICE_MONITOR_STORE": where}


def from_variable(url: str, folder: Path) -> dict[str, str]:
    return {"SERVICE_MONITOR_STORE": url, "ETCDCTL_USER": f"user:{SECRET}"}


def from_url(url: str, folder: Path) -> dict[str, str]:
    user = f"//user:{quote(SECRET, safe='')}@"
    return {"SERVICE_MONITOR_STORE": url.replace("//", user)}


Given = Callable[[str, Path], dict[str, str]]


def watching(url: str) -> dict[str, str]:
    """Tell a `watch` what to probe, with all the credentials there may be."""
    user = f"//user:{quote(SERVICE_SECRET)}@"
    return {
        "SERVICE_MONITOR_LABEL": "es",
        "SERVICE_MONITOR_SERVICE_ID": "es-1",
        "SERVICE_MONITOR_MONITOR_URL": url.replace("//", user),
        "SERVICE_MONITOR_HEADER": f"X-Token: {TOKEN}",
        "SERVICE_MONITOR_LOG_LEVEL": "debug",
    }


def hearing(answer: bytes, heard: list[bytes]) -> Talk:
    """Keep what is sent, with its body, and answer."""

    def talk(connection: socket.socket) -> None:
        head, body = read_message(connection)
        heard.append(head + body)
        connection.sendall(answer)

    return talk


DENIED = status("401 No", body=b'{"code": 16, "message": "authentication failed"}')
FORBIDDEN = status("401 No", body=b'{"errorCode": 110, "message": "no", "index": 1}')


@pytest.mark.parametrize("given", [from_file, from_variable, from_url])
@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("etcd", DENIED),
        ("etcd", None),
        ("etcd2", FORBIDDEN),
        ("etcd2", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "" if value else "down",
)
@pytest.mark.parametrize(
    ("command", "said"), [("hosts", "the store "), ("watch", "still probing: ")]
)
def test_a_store_that_fails_is_not_told_of_with_its_password(
    tmp_path: Path,
    serve: Serve,
    given: Given,
    scheme: str,
    answer: bytes | None,
    command: str,
    said: str,
) -> None:
    """Who may read the log, or looks at `ps`, could take and delete every lease."""
    heard: list[bytes] = []
    port = serve(hearing(answer, heard)).port if answer else unused_port()
    env = environment(tmp_path) | watching("http://127.0.0.1:1/")
    env |= given(f"{scheme}://127.0.0.1:{port}", tmp_path)
    log = tmp_path / "log"
    with log.open("w") as err, started([command], env, stderr=err) as running:
        shown = command_line(running)
        wait_until(lambda: said in log.read_text())
        running.terminate()
        outcome = finish(running)
    assert_untold(shown, outcome.out, log.read_text())
    assert not answer or any(form in text for text in heard for form in forms(SECRET))


def test_a_services_password_is_in_no_record(
    path: Path, store: Store, serve: Serve, run: Run
) -> None:
    """Whoever may read the store could administer the service."""
    heard: list[bytes] = []
    server = serve(answering(status("200 OK"), heard))
    with started(["watch"], environment(path) | watching(server.url)) as running:
        wait_until(lambda: is_up(store, "es/hosts/es-1"))
        shown = command_line(running)
        records = store.list("").records
        tables = [run("status", f"--format={form}").out for form in ("table", "json")]
        running.terminate()
        outcome = finish(running)
    assert f"user:{SERVICE_SECRET}".encode() in base64.b64decode(
        heard[0].partition(b"Basic ")[2].split(b"\r\n")[0]
    )
    assert TOKEN.encode() in heard[0]
    assert records
    assert outcome.err
    assert_untold(shown, *outcome[1:], *tables, *(r.value for r in records))


# Crashes

CRASH = """
import service_monitor.{module} as module
def crash(*args, **given):
    raise RuntimeError(args, given)
module.{name} = crash
from service_monitor.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("scheme", "module", "name"),
    [
        ("etcd", "stores.etcd.v3", "Etcd3Store.__init__"),
        ("etcd2", "stores.etcd.v2", "Etcd2Store.__init__"),
        ("etcd", "stores.failover", "Failover.call"),
        ("etcd", "node.watcher", "Watcher.__init__"),
        ("etcd", "node.probe", "new_probe"),
        ("etcd", "net.http", "new_session"),
    ],
)
def test_a_traceback_holds_no_secret(
    tmp_path: Path, scheme: str, module: str, name: str
) -> None:
    """Our own mistakes would carry passwords into the journal and the bug report."""
    url = f"{scheme}://127.0.0.1:{unused_port()}"
    env = environment(tmp_path) | watching("http://h/") | from_url(url, tmp_path)
    program = CRASH.format(module=module, name=name)
    code, out, err = ended(["watch"], env, cli=by_python(program))
    assert code == 70
    assert "RuntimeError: (" in err
    assert_untold(out, err)


def test_a_target_keeps_its_credentials_to_itself() -> None:
    """A debug line would tell them."""
    headers = {"Authorization": TOKEN}
    assert_untold(
        repr(Target(read_monitored_url(f"http://u:{SERVICE_SECRET}@h"), 3, headers))
    )


# The command line


@pytest.mark.parametrize(
    ("option", "twin", "value"),
    [
        ("--store", "STORE", "etcd://u:s3cret@127.0.0.1:1"),
        ("--monitor-url", "URL", "http://u:s3cret@127.0.0.1:1"),
        ("--header", "HEADER", "authorization: s3cret"),
    ],
)
def test_a_password_in_ps_is_warned_of(
    run: Run, option: str, twin: str, value: str
) -> None:
    """Nobody would notice that every user of the machine can read it."""
    given = {
        "SERVICE_MONITOR_LABEL": "es",
        "SERVICE_MONITOR_MONITOR_URL": "http://127.0.0.1:1",
        "SERVICE_MONITOR_TTL": "1h",
    }
    stop = Stop()
    stop.request()
    typed = run("watch", f"{option}={value}", stop=stop, env=given).err
    said = f"WARNING {option} holds a password, which ps shows to everybody on this "
    assert f"{said}machine: put it into SERVICE_MONITOR_{twin}\n" in typed
    given[f"SERVICE_MONITOR_{twin}"] = value
    from_environment = run("watch", stop=stop, env=given).err
    assert "s3cret" not in typed + from_environment
    assert "which ps shows" not in from_environment

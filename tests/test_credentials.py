"""Credentials that cannot be sent are told of, and shown by no library either."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import requests
import urllib3

from integration.support.commands import (
    HANG,
    Run,
    environment,
    finish,
    started,
    wait_until,
)
from integration.support.loopback import Serve, answering, status, unused_port
from service_monitor import text as shown
from service_monitor.cli.options import start_logging
from service_monitor.errors import StoreError, describe
from service_monitor.net.calls import Stop
from service_monitor.node.probe import Target, new_probe
from service_monitor.stores.opening import open_store
from tests.test_work_alikes import WorkAlike

SECRET = "Zq7Kx9Wv3Tb5Ym2N"
KEY_ID = "AKIAZQ7KX9WV3TB5"
BAD = ["\n", "\r", "\r\n", "\t", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\udcff"]
WHERE = {"end": "{0}{1}", "start": "{1}{0}", "middle": "{2}{1}{3}"}


def spoiled(bad: str, where: str = "end", secret: str = SECRET) -> str:
    return WHERE[where].format(secret, bad, secret[:8], secret[8:])


def assert_untold(*texts: str, secret: str = SECRET) -> None:
    """Find no six characters in a row of it."""
    for text in texts:
        for start in range(len(secret) - 5):
            assert secret[start : start + 6] not in text, text


@pytest.fixture(autouse=True)
def _forget() -> None:
    shown.forget_hidden()


# from the environment and the options: before anything is sent


def etcd_password(secret: str, scheme: str, port: int) -> dict[str, str]:
    given = {"ETCDCTL_USER": "user", "ETCDCTL_PASSWORD": secret}
    return given | {"SERVICE_MONITOR_STORE": f"{scheme}://127.0.0.1:{port}"}


def etcd_user(secret: str, scheme: str, port: int) -> dict[str, str]:
    store = f"{scheme}://127.0.0.1:{port}"
    return {"ETCDCTL_USER": f"user:{secret}", "SERVICE_MONITOR_STORE": store}


def etcd_url(secret: str, scheme: str, port: int) -> dict[str, str]:
    told = quote(secret.encode(errors="surrogateescape"), safe="")
    return {"SERVICE_MONITOR_STORE": f"{scheme}://user:{told}@127.0.0.1:{port}"}


COMMANDS = [
    "hosts",
    "acquire-lease",
    "watch --monitor-url=http://h:1",
    "run --monitor-url=http://h:1 -- true",
    "status",
    "release-lease",
]


def refused(run: Run, command: str, env: Mapping[str, str]) -> str:
    """Run a command that must end with 2 and one line that tells nothing."""
    name, *argv = command.split()
    options = ["--log-level=debug", "--label=es", "--service-id=a"]
    if name in ("hosts", "status"):
        options.pop()
    begun = time.monotonic()
    code, out, err = run(name, *options, *argv, env=env)
    assert time.monotonic() - begun < 5
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert_untold(err)
    return err


@pytest.mark.parametrize("bad", BAD, ids=ascii)
@pytest.mark.parametrize("scheme", ["etcd", "etcd2"])
@pytest.mark.parametrize("given", [etcd_password, etcd_user, etcd_url])
def test_a_password_with_a_control_character_is_a_usage_error(
    run: Run,
    bad: str,
    scheme: str,
    given: Callable[[str, str, int], dict[str, str]],
) -> None:
    """It was refused as a wrong password, or quoted by the library it choked."""
    if given is etcd_url and bad == "\udcff":
        return  # bytes that are no UTF-8 are another character once decoded
    for where, command in zip(WHERE, COMMANDS, strict=False):
        env = given(spoiled(bad, where), scheme, unused_port())
        said = refused(run, command, env)
        assert "has a control character in " in said or "carriage return" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_checks(run: Run, command: str) -> None:
    """One that does not would tell the secret alone."""
    refused(run, command, etcd_password(spoiled("\n"), "etcd", unused_port()))


@pytest.mark.parametrize("bad", ["\r", "\t", "\x1b", "\x00", "\n"], ids=ascii)
def test_a_password_file_with_a_control_character_is_a_usage_error(
    run: Run, tmp_path: Path, bad: str
) -> None:
    """A file of another system's line ends would be a wrong password."""
    (tmp_path / "p").write_bytes(spoiled(bad, "middle").encode())
    store = f"etcd://user@127.0.0.1:1?password-file={tmp_path}/p"
    err = refused(run, "hosts", {"SERVICE_MONITOR_STORE": store})
    assert f"{tmp_path}/p" in err


@pytest.mark.parametrize("bad", [*BAD, " ", "\xa0"], ids=ascii)
@pytest.mark.parametrize(
    "variable",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ],
)
def test_aws_credentials_that_cannot_be_sent_are_a_usage_error(
    run: Run, bad: str, variable: str
) -> None:
    """The whole token was in the log, and it was taken for an outage."""
    url = f"dynamodb://t12?region=r&endpoint=http://127.0.0.1:{unused_port()}"
    given = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "key",
        "SERVICE_MONITOR_STORE": url,
    }
    for where, command in zip(WHERE, COMMANDS, strict=False):
        env = given | {variable: spoiled(bad, where)}
        err = refused(run, command, env)
        assert f"{variable} holds a blank or a control character" in err


@pytest.mark.parametrize("bad", BAD[:-1], ids=ascii)
@pytest.mark.parametrize("twin", [True, False])
def test_a_header_with_a_control_character_is_a_usage_error(
    run: Run, bad: str, twin: bool
) -> None:
    """A line end was cut off or sent, as the character was."""
    for where in WHERE:
        text = f"X-Token: {spoiled(bad, where)}"
        if twin:
            if "\n" in bad or (bad == "\t" and where != "middle"):
                continue  # a line for each; and a tab is a blank
            env = {"SERVICE_MONITOR_HEADER": text}
            refused(run, "watch --monitor-url=http://h:1", env)
        elif bad != "\t" or where == "middle":
            given = f"--header={text}"
            name = "watch", "--label=es", "--monitor-url=http://h:1"
            code, _, err = run(*name, given)
            assert code == 2
            assert_untold(err)


@pytest.mark.parametrize("bad", ["%0A", "%0d", "%00", "%1b", "%7F"])
@pytest.mark.parametrize("part", ["user:{}", "{}:pass"])
def test_a_services_password_with_a_control_character_is_a_usage_error(
    run: Run, bad: str, part: str
) -> None:
    """The service would answer 401 for ever."""
    url = f"http://{part.format(f'Zq7Kx{bad}')}@h:1/"
    code, _, err = run("watch", "--label=es", f"--monitor-url={url}")
    assert code == 2
    assert "has a control character in what stands before the @" in err


def test_what_is_not_used_is_not_checked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variable of another tool would keep this one from working."""
    env = {"ETCDCTL_PASSWORD": spoiled("\n"), "AWS_SESSION_TOKEN": spoiled("\n")}
    assert run("hosts", "--label=es", env=env).code == 0
    config = tmp_path / "config"
    config.write_text("[profile p]\naws_access_key_id = k\naws_secret_access_key = s\n")
    env |= {"AWS_CONFIG_FILE": str(config)}
    url = "dynamodb://t12?region=r&profile=p&endpoint=http://127.0.0.1:1"
    assert run("hosts", "--label=es", f"--store={url}", env=env).code == 69


@pytest.mark.parametrize("at", ["@", "%40"])
@pytest.mark.parametrize("user", [f"user:{SECRET}", f":{SECRET}"])
def test_an_endpoint_with_a_password_is_a_usage_error(
    run: Run, at: str, user: str
) -> None:
    """It was shown with each outage, and never used."""
    url = f"dynamodb://t12?region=r&endpoint=http://{user}{at}127.0.0.1:1"
    refused(run, "hosts", {"SERVICE_MONITOR_STORE": url})


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"])
@pytest.mark.parametrize("url", ["http://user:{}@h h:1", "user:{}@h", "http://{}:x:1"])
def test_an_endpoint_of_the_environment_is_not_quoted(
    run: Run, variable: str, url: str
) -> None:
    """boto3 quotes it in the error that says that it is wrong."""
    env = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "key",
        variable: url.format(SECRET),
    }
    code, out, err = run(
        "hosts", "--label=es", "--store=dynamodb://t12?region=r", env=env
    )
    assert (code in (2, 69), out, err.count("\n")) == (True, "", 1)
    assert_untold(err)


# from a file or a process: later


def profile(folder: Path, secret: str) -> dict[str, str]:
    """Lay down a token of two lines, as an INI file can hold it."""
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = key\naws_secret_access_key = key\n"
        f"aws_session_token = {secret[:8]}\n  {secret[8:]}\n"
    )
    return {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials")}


def process(folder: Path, secret: str) -> dict[str, str]:
    """Lay down a program whose answer has a token with a line end."""
    answer = {
        "Version": 1,
        "AccessKeyId": "key",
        "SecretAccessKey": "key",
        "SessionToken": f"{secret}\n",
    }
    (folder / "answer").write_text(json.dumps(answer))
    return failing_process(folder, f"cat {folder}/answer")


def failing_process(folder: Path, command: str) -> dict[str, str]:
    (folder / "config").write_text(f"[default]\ncredential_process = {command}\n")
    return {"AWS_CONFIG_FILE": str(folder / "config")}


def chatty(folder: Path, secret: str) -> dict[str, str]:
    """Lay down a program that fails and says its secret."""
    (folder / "chat.sh").write_text(f"echo token {secret} is expired >&2; exit 1\n")
    return failing_process(folder, f"sh {folder}/chat.sh")


def babbling(folder: Path, secret: str) -> dict[str, str]:
    """Lay down a program whose answer is no JSON."""
    (folder / "answer").write_text(secret)
    return failing_process(folder, f"cat {folder}/answer")


Source = Callable[[Path, str], dict[str, str]]


@pytest.mark.parametrize("source", [profile, process, chatty, babbling])
@pytest.mark.parametrize("command", ["hosts", "acquire-lease", "init-store"])
def test_what_comes_from_elsewhere_is_not_shown_either(
    run: Run, serve: Serve, tmp_path: Path, source: Source, command: str
) -> None:
    """The whole token was in the log of every node."""
    there = WorkAlike(serve)
    argv = {"init-store": []}.get(command, ["--label=es"])
    if command == "acquire-lease":
        argv += ["--service-id=a", "--host=h", "--acquire-timeout=1s"]
    options = [*argv, f"--store={there.url}", "--log-level=debug"]
    code, out, err = run(command, *options, env=source(tmp_path, SECRET))
    waits = source is chatty and command == "acquire-lease"
    assert (code, out) == (1 if waits else 69, "")
    assert_untold(err)
    assert there.asked == []
    if source in (profile, process):
        assert "AWS credentials: the session token holds a blank or a control" in err


@pytest.mark.parametrize("source", [profile, chatty])
def test_a_watch_does_not_tell_it(serve: Serve, tmp_path: Path, source: Source) -> None:
    """It logs for months, to where many may read."""
    there = WorkAlike(serve)
    log = tmp_path / "log"
    url = f"--monitor-url={serve(answering(status('200 OK'))).url}"
    argv = ["watch", "--label=es", "--service-id=a", "--host=h", url]
    env = environment(tmp_path) | source(tmp_path, SECRET)
    with log.open("w") as err:
        options = [f"--store={there.url}", "--log-level=debug"]
        with started([*argv, *options], env, stderr=err) as running:
            wait_until(lambda: ", probing on: " in log.read_text())
            wait_until(lambda: "a is up" in log.read_text())
            running.terminate()
            assert finish(running).code == 0
    assert_untold(log.read_text())


# what a library raises


RAISED = [
    ValueError(f"Invalid header value b'{SECRET}\\n'"),
    requests.exceptions.InvalidHeader(f"Invalid return character: '{SECRET}'"),
    UnicodeEncodeError("latin-1", SECRET, 0, 6, SECRET),
    urllib3.exceptions.LocationParseError(f"user:{SECRET}@h"),
    requests.exceptions.InvalidURL(f"Failed to parse: http://user:{SECRET}@h"),
    RuntimeError(f"headers were {{'Authorization': '{SECRET}'}}"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
def test_a_text_that_may_quote_a_request_is_not_a_description(error: Exception) -> None:
    """Each new library would have its own way to tell."""
    for each in error, urllib3.exceptions.ProtocolError("aborted", error):
        assert_untold(describe(each))
        assert type(error).__name__ in describe(each)


@pytest.mark.parametrize("error", RAISED[:5], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("scheme", ["etcd", "etcd2"])
def test_no_store_quotes_what_its_library_raises(
    monkeypatch: pytest.MonkeyPatch, error: Exception, scheme: str
) -> None:
    """A lease was not acquired, and the log had the password."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("urllib3.connection.HTTPConnection.request", fail)
    store = open_store(f"{scheme}://127.0.0.1:{unused_port()}", Stop(), {})
    snapshot: Any = type("S", (), {"cursor": 1, "records": ()})
    for call in lambda: store.list("es/"), lambda: store.wait("es/", snapshot, 2.0):
        with pytest.raises(StoreError) as failed:
            call()
        assert_untold(str(failed.value))
    store.close()


@pytest.mark.parametrize("error", [RAISED[1], RAISED[4], OSError("stdout is closed")])
def test_what_escapes_all_is_not_quoted_either(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The errors of `requests` are errors of the system, too: they would be exit 74."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("service_monitor.stores.sqlite.store.SqliteStore.list", fail)
    code, _, err = run("hosts", "--label=es")
    assert (code, err.count("\n")) == (74, 1)
    assert "cannot go on: " in err
    assert_untold(err)


@pytest.mark.parametrize("error", RAISED[:5], ids=lambda e: type(e).__name__)
def test_no_probe_quotes_what_its_library_raises(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The reason goes into the record, which every node reads."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("urllib3.connection.HTTPConnection.request", fail)
    ok, reason = new_probe(Target("http://127.0.0.1:1", HANG), Stop())()
    assert not ok
    assert_untold(reason)


@pytest.mark.parametrize(
    "said",
    [
        "The request signature we calculated does not match the signature you provided."
        " The Canonical String for this request should have been 'POST\n/\n\n"
        f"x-amz-security-token:{SECRET}\n'",
        "Authorization header requires 'Credential' parameter. Authorization="
        f"AWS4-HMAC-SHA256 Credential={SECRET}",
    ],
)
@pytest.mark.parametrize(
    "code", ["InvalidSignatureException", "IncompleteSignatureException"]
)
def test_aws_quotes_a_request_and_we_do_not(
    run: Run, serve: Serve, said: str, code: str
) -> None:
    """A wrong secret key would put the session token of the right one into the log."""
    there = WorkAlike(serve)
    there.answers["Query"] = 400, {"__type": f"x#{code}", "message": said}
    env = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key"}
    code_, _, err = run("hosts", "--label=es", f"--store={there.url}", env=env)
    assert code_ == 69
    assert code in err
    assert_untold(err)


# the last resort


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        f"b'{SECRET}\\n'",
        quote(f"{SECRET}/", safe=""),
        "x" * 990 + SECRET,
        "YS1iOlpxN0t4OVd2M1RiNVltMk4=",
    ],
)
def test_what_is_known_to_be_secret_is_masked_wherever_it_turns_up(form: str) -> None:
    """A server that echoes a request would put it into the log."""
    shown.hide(SECRET, user="a-b")
    assert_untold(shown.printable(form, 1000), shown.masked(form))
    assert "YS1iOlpx" not in shown.printable(form)


def test_words_are_not_masked() -> None:
    """A password of four letters would garble the log, and so tell itself."""
    shown.hide("node", "Bearer " + SECRET)
    assert shown.masked("the next node may start") == "the next node may start"
    assert shown.masked(f"Bearer {SECRET}") == "***"
    assert shown.masked(f"Bearer: {SECRET}") == "Bearer: ***"


def test_a_log_line_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """One that quotes an error of a library passes no check of ours."""
    shown.hide(SECRET)
    context = click.Context(click.Command("hosts"), resilient_parsing=True)
    start_logging(context, None, "debug")  # type: ignore[arg-type]
    try:
        raise ValueError(f"Invalid header value b'{SECRET}'")
    except ValueError:
        logging.getLogger("service_monitor.x").exception("cannot send %s", SECRET)
    err = capsys.readouterr().err
    assert "cannot send ***" in err
    assert_untold(err)


CRASH = """
import threading
from service_monitor.stores.etcd.v3 import Etcd3Store
def crash(store, *_):
    raise RuntimeError(f"b'{{store._gateway._access.password}}'")
Etcd3Store.list = crash
if {in_thread}:
    import service_monitor.cli.app as cli
    def main(**_):
        from service_monitor.stores.opening import open_store
        from service_monitor.net.calls import Stop
        store = open_store(None, Stop())
        thread = threading.Thread(target=store.list, args=("",))
        thread.start()
        thread.join()
        return 1
    cli.main = main
from service_monitor.__main__ import main
main()
"""


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_crash_is_told_without_secrets(tmp_path: Path, in_thread: bool) -> None:
    """Our own mistakes would carry passwords into the journal and the bug report."""
    env = environment(tmp_path) | {
        "SERVICE_MONITOR_STORE": "etcd://127.0.0.1:1",
        "ETCDCTL_ENDPOINTS": "127.0.0.1:1",
        "ETCDCTL_USER": f"user:{SECRET}",
    }
    program = CRASH.format(in_thread=in_thread)
    done = subprocess.run(
        [sys.executable, "-c", program, "hosts", "--label=es"],
        env=env,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == (1 if in_thread else 70)
    assert "RuntimeError: b'***'" in done.stderr
    assert_untold(done.stdout, done.stderr)

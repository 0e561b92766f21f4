"""Passwords, tokens and keys: checked before they are sent, and never shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from integration.support.commands import (
    HANG,
    Run,
    environment,
    finish,
    started,
    wait_until,
)
from integration.support.loopback import Serve, answering, status, unused_port
from integration.support.secret import SECRET, WHERE, assert_untold, spoiled
from integration.support.work_alike import WorkAlike

KEY_ID = "AKIAZQ7KX9WV3TB5"
BAD = ["\n", "\r", "\r\n", "\t", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\udcff"]


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
    assert time.monotonic() - begun < HANG / 2
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
            wait_until(lambda: ", still probing: " in log.read_text())
            wait_until(lambda: "a is up" in log.read_text())
            running.terminate()
            assert finish(running).code == 0
    assert_untold(log.read_text())

"""No secret in what a library raises, in a log line, or in a crash."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import requests
import urllib3

from integration.support.commands import HANG, Run, by_python, ended, environment
from integration.support.loopback import Serve, unused_port
from integration.support.secret import SECRET, assert_untold
from integration.support.stores import open_url
from integration.support.work_alike import WorkAlike
from service_monitor import text as shown
from service_monitor.cli.options import start_logging
from service_monitor.errors import StoreError, describe
from service_monitor.net.calls import Bounds
from service_monitor.node.monitored import read_monitored_url
from service_monitor.node.probe import Target, new_probe

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
    store = open_url(f"{scheme}://127.0.0.1:{unused_port()}", Bounds(), {})
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
    ok, reason = new_probe(
        Target(read_monitored_url("http://127.0.0.1:1"), HANG), Bounds()
    )()
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


@pytest.mark.parametrize("quoted", ['p"w', 'p\\"w', "cCJ3", "p%22w"])
def test_an_answer_does_not_quote_a_short_password(quoted: str) -> None:
    """The log would show what is too short to be taken out of every line."""
    short = 'p"w'
    shown.hide(short)
    assert shown.masked(f"no: {quoted}") == f"no: {quoted}"
    assert shown.masked(f"no: {quoted}", [short, ""]) == "no: ***"


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
        from integration.support.stores import open_url
        from service_monitor.net.calls import Bounds
        store = open_url(None, Bounds())
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
    code, out, err = ended(["hosts", "--label=es"], env, cli=by_python(program))
    assert code == (1 if in_thread else 70)
    assert "RuntimeError: b'***'" in err
    assert_untold(out, err)

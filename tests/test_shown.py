"""What was given, as it may be shown."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_monitor.net.urls import mask_url
from service_monitor.text import forget_hidden, hide, masked, printable, quoted


@given(st.text())
def test_what_is_quoted_fits_on_a_line(text: str) -> None:
    """A label with an escape code would clear the operator's screen."""
    shown = quoted(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 80


@given(st.text(), st.integers(1, 50))
def test_what_a_server_wrote_stays_on_its_line(text: str, longest: int) -> None:
    """A reason phrase could forge lines of our log."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    assert len(printable(text, longest)) <= longest + len("...")


def test_escapes_are_readable() -> None:
    """Nobody could tell what was in there."""
    assert printable("a\nb\x1b[2J\udcffé") == r"a\nb\x1b[2J\udcffé"
    assert quoted("a" * 78) == f"'{'a' * 78}'"
    assert quoted("a" * 79) == f"'{'a' * 75}...'"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:s3cret@h:80/x", "http://user:***@h:80/x"),
        ("etcd://u:s3cret@h1,h2/p", "etcd://u:***@h1,h2/p"),
        ("http://:s3cret@h", "http://:***@h"),
        ("etcd://u:s3/c#r?e:t@h", "etcd://u:***@h"),
        ("http://u:s3@cret@h", "http://u:***@h"),
        ("http://u:s3\ncret@h", "http://u:***@h"),
        ("x s3cret://u:p@h", "x s3cret://u:***@h"),
        ("http://h:9200/x", "http://h:9200/x"),
        ("http://h/x@y", "http://h/x@y"),
        ("http://h:9200/x@y", "http://h:9200/x@y"),
        ("http://h:9200/x?mail=a@b", "http://h:9200/x?mail=a@b"),
        ("http://[::1]:9200/?a:b@c", "http://[::1]:9200/?a:b@c"),
        ("http://[fe80::1%25eth0]/x@y", "http://[fe80::1%25eth0]/x@y"),
        ("http://user@h:80/x:y@z", "http://user@h:80/x:y@z"),
        ("etcd://h1:2379,h2:2379/p?ca=a@b", "etcd://h1:2379,h2:2379/p?ca=a@b"),
        ("http://u:s3cret@h:80/x?mail=a@b", "http://u:***@b"),
        ("http://u@x:s3cret@h", "http://u@x:***@h"),
        ("http://u:99999/s3@h", "http://u:***@h"),
        ("http://h:1,http://u:s3@h", "http://h:***@h"),
        ("http://h/x//u:s3@h", "http://h/x//u:***@h"),
        ("http://user@h", "http://user@h"),
        ("http://[::1]:80/", "http://[::1]:80/"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    """The service's password would be in every log."""
    assert mask_url(url) == shown


@given(st.text(alphabet="ab:/?#@[]% \n", max_size=30))
def test_no_password_gets_through(password: str) -> None:
    """A password that does not parse would be printed in the error that says so."""
    masked = mask_url(f"etcd://user:<{password}>@host:1/p")
    assert masked == "etcd://user:***@host:1/p"


@pytest.mark.parametrize(
    "secret", ["s3cret-s3cret", "s3cret-\u00e9-s3cret", 's3 cr"et']
)
def test_a_secret_is_hidden_however_a_server_quotes_it(secret: str) -> None:
    """A redirect that repeats our request in its own URL would tell the password."""
    hide(secret, user="root")
    raw = secret.encode()
    sent = base64.b64encode(b"root:" + raw).decode()
    wrong = raw.decode("latin-1")
    quoted = quote(raw, safe=""), quote(wrong, safe=""), quote(sent, safe="")
    for form in (secret, wrong, sent, *quoted):
        assert masked(f"<{form}>") == "<***>"
    forget_hidden()


@pytest.mark.parametrize("option", ["password", "PASSWD", "passwordfile", "pass"])
def test_a_password_as_an_option_is_hidden(option: str) -> None:
    """Who guesses the option's name wrong would find the password in the log."""
    shown = mask_url(f"etcd://u@h?ca=a&{option}=SECRET&key=k")
    assert shown == f"etcd://u@h?ca=a&{option}=***&key=k"
    assert (
        mask_url("etcd://u@h?password-file=/run/p") == "etcd://u@h?password-file=/run/p"
    )

"""What the URL of an etcd says: addresses, prefix, user and password, TLS files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.support.certificates import Certificates
from service_monitor.errors import ConfigError
from service_monitor.stores.etcd.endpoints import Access, parse_endpoints


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("etcd://h", ["http://h:2379"]),
        ("ETCD://h", ["http://h:2379"]),
        ("etcd://h:4001/", ["http://h:4001"]),
        (
            "etcd://h1:1,h2,10.0.0.1:3",
            ["http://h1:1", "http://h2:2379", "http://10.0.0.1:3"],
        ),
        ("etcd://[::1]:1,[::1]", ["http://[::1]:1", "http://[::1]:2379"]),
        ("etcd://h:1,h:1", ["http://h:1"]),
        ("etcds://h", ["https://h:2379"]),
        ("etcd2s://u:p@h", ["https://h:2379"]),
    ],
)
def test_reads_endpoints(url: str, found: list[str]) -> None:
    """The wrong member would be asked, or none."""
    assert [str(endpoint) for endpoint in parse_endpoints(url, {})[0]] == found


@pytest.mark.parametrize(
    ("url", "access"),
    [
        ("etcd://h", Access()),
        ("etcd://h/", Access()),
        ("etcd://h/a/b.c", Access("/a/b.c")),
        ("etcd://h/a/", Access("/a")),
        ("etcd://u:p@h", Access(user="u", password="p")),
        ("etcd://u:p:q%40%2F%23@h", Access(user="u", password="p:q@/#")),
        ("etcd://u:p%25%C3%A9@h", Access(user="u", password="p%é")),
        ("etcd://u%3Av:p@h", Access(user="u:v", password="p")),
    ],
)
def test_reads_prefix_and_credentials(url: str, access: Access) -> None:
    """Nodes would be let in as somebody else, or meet under different keys."""
    assert parse_endpoints(url, {})[1] == access


@pytest.mark.parametrize(
    ("url", "environ", "user", "password"),
    [
        ("etcd://h", {"ETCDCTL_USER": "u:p%"}, "u", "p%"),
        ("etcd://h", {"ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"}, "u", "p"),
        ("etcd://u@h", {"ETCDCTL_PASSWORD": "p"}, "u", "p"),
        ("etcd://u:p@h", {"ETCDCTL_USER": "x:y", "ETCDCTL_PASSWORD": "z"}, "u", "p"),
        ("etcd://h", {"ETCDCTL_PASSWORD": "p"}, None, None),
        ("etcd://h", {"ETCDCTL_USER": ""}, None, None),
    ],
)
def test_credentials_come_from_where_etcdctl_has_them(
    url: str, environ: dict[str, str], user: str | None, password: str | None
) -> None:
    """An etcd user would have to write the password into the command line."""
    access = parse_endpoints(url, environ)[1]
    assert (access.user, access.password) == (user, password)


@pytest.mark.parametrize("content", ["p:%", "p:%\n", "p:%\r\n"])
@pytest.mark.parametrize(
    ("url", "user"), [("etcd://u@h", "u"), ("etcd://h", "v"), ("etcd2s://u@h", "u")]
)
def test_a_password_comes_from_a_file(
    tmp_path: Path, content: str, url: str, user: str
) -> None:
    """A secret mounted by Docker or systemd would have to be copied into a variable."""
    file = tmp_path / "p w"
    file.write_text(content)
    environ = {"ETCDCTL_USER": "v", "ETCDCTL_PASSWORD": "z"}
    found = f"{url}?password-file={tmp_path}/p%20w"
    access = parse_endpoints(found, environ)[1]
    assert (access.user, access.password) == (user, "p:%")


@pytest.mark.parametrize(
    ("url", "content", "why"),
    [
        ("etcd://u@h", b"", "empty or too long"),
        ("etcd://u@h", b"\n", "empty or too long"),
        ("etcd://u@h", b"s3cret" * 999, "empty or too long"),
        ("etcd://u@h", b"s3\xffcret", "not UTF-8"),
        ("etcd://u@h", b"s3cret\n\n", "more than one line"),
        ("etcd://u@h", b"s3cret\r\ns3cret", "more than one line"),
        ("etcd://u:s3cret@h", b"p", "needs a user, and no password"),
        ("etcd://h", b"p", "needs a user, and no password"),
    ],
)
def test_refuses_a_password_file_without_showing_it(
    tmp_path: Path, url: str, content: bytes, why: str
) -> None:
    """acquire-lease would be refused by the store until its timeout."""
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        parse_endpoints(f"{url}?password-file={file}", {})
    assert why in str(refused.value)
    assert "s3" not in str(refused.value)
    assert "xff" not in str(refused.value)


def test_tls_files_come_from_the_url_or_from_where_etcdctl_has_them(
    certificates: Certificates, strangers: Certificates
) -> None:
    """An etcd that asks for certificates could not be used."""
    ca, cert, key = certificates.ca, certificates.cert, certificates.key
    environ = {"ETCDCTL_CACERT": ca, "ETCDCTL_CERT": cert, "ETCDCTL_KEY": key}
    expected = Access(ca=ca, cert=(cert, key))
    assert parse_endpoints("etcds://h", environ)[1] == expected
    url = f"etcds://h?ca={ca}&cert={cert}&key={key}"
    assert parse_endpoints(url, {"ETCDCTL_CACERT": strangers.ca})[1] == expected
    assert parse_endpoints("etcd://h", {"ETCDCTL_CACERT": "/no"})[1] == Access()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("etcd:", "does not read as"),
        ("etcd:h", "does not read as"),
        ("etcd://", "names no host"),
        ("etcd:///p", "names no host"),
        ("etcd://u:s3cret@", "names no host"),
        ("etcd://h,,h", "names no host"),
        ("etcd://h1,", "names no host"),
        ("etcd://[::1", "names no host"),
        ("etcd://h,[fe80::1]:2379", "names no interface"),
        ("etcd://u:s3%cret@h", "has a % that escapes nothing: write %25 for it"),
        ("etcd://u:s3cret%@h", "has a % that escapes nothing"),
        ("etcd://u:s3%ffcret@h", "escapes bytes that are not UTF-8"),
        ("etcd://h_!", "no valid host"),
        ("etcd://10.0.0.256", "no valid host"),
        ("etcd://h:0", "no valid port"),
        ("etcd://h:65536", "no valid port"),
        ("etcd://h:", "no valid port"),
        ("etcd://h:x", "no valid port"),
        ("etcd://h h", "does not read as"),
        (" etcd://h", "does not read as"),
        ("etcd://h\n", "does not read as"),
        ("etcd://h\r", "does not read as"),
        ("etcd://hé", "does not read as"),
        ("etcd://h/../x", "does not read as"),
        ("etcd://h/a//b", "does not read as"),
        ("etcd://h/_hidden", "does not read as"),
        ("etcd://h/%2e", "does not read as"),
        ("etcd://h#x", "does not read as"),
        ("etcd://u:s3/cret@h", "does not read as"),
        ("etcd://u:s3#cret@h", "does not read as"),
        ("etcd://u:s3?cret@h", "does not read as"),
        ("etcd://u:s3@cret@h", "does not read as"),
        ("etcd://:s3@h", "names no user"),
        ("etcd://@h", "names no user"),
        ("etcd://a,u:s3@h2", "once for all hosts"),
        ("etcd://u@h", "has no password for 'u': set ETCDCTL_PASSWORD, or ?password"),
        ("etcd://u@h?password-file", "needs password-file once, with a value"),
        ("etcd://u@h?password-file=/no", "no password in /no: no such file"),
        ("etcd://u@h?password-file=/", "no password in /: is a directory"),
        ("etcd://u:@h", "has no password for 'u': set ETCDCTL_PASSWORD"),
        ("etcds://h?x=1", "unknown option 'x'"),
        ("etcds://h?ca", "needs ca once, with a value"),
        ("etcds://h?ca=", "needs ca once, with a value"),
        ("etcds://h?ca=a&ca=b", "needs ca once, with a value"),
        ("etcd://h?ca=/ca.pem", "needs TLS"),
        ("etcds://h?cert=a", "needs both cert and key"),
        ("etcds://h?key=a", "needs both cert and key"),
        ("etcds://h?ca=/nowhere/ca.pem", "no such file: /nowhere/ca.pem"),
    ],
)
def test_refuses_a_url_without_showing_its_password(url: str, why: str) -> None:
    """acquire-lease would wait out its timeout, or its log tell the password."""
    with pytest.raises(ConfigError) as refused:
        parse_endpoints(url, {})
    message = str(refused.value)
    assert message.startswith("store 'etcd") or message.startswith("store ' etcd")
    assert why in message
    assert message.isprintable()
    assert "s3" not in message
    assert "cret" not in message


@given(st.text(alphabet="etcd:/@,?#=&[]%.ah1 \n", max_size=25))
def test_no_url_makes_it_crash(rest: str) -> None:
    """A typing error would end in a traceback."""
    try:
        found, access = parse_endpoints(f"etcd://{rest}", {})
    except ConfigError:
        return
    assert all(str(endpoint).isprintable() for endpoint in found)
    assert access.prefix.startswith("/")
    assert ".." not in access.prefix.split("/")


def test_an_access_keeps_its_password_to_itself() -> None:
    """A traceback or a debug line would tell it."""
    assert "s3cret" not in repr(Access(user="u", password="s3cret"))

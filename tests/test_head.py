"""Headers, put right for a reader that is strict."""

from __future__ import annotations

from http.client import HTTPException

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_monitor.net.head import tamed


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        (["A: b\r\n", "c:d\n"], ["A: b", "c: d"]),
        (["A: b\r\n", " c\r\n", "\td\r\n"], ["A: b c d"]),
        (["no\r\n", " c\r\n", "A: b\r\n"], ["A: b"]),
        (["A : b\r\n"], ["A: b"]),
        (["Set-Cookie: a=b\r\n", "X-Etcd-Index: 7\r\n"], ["X-Etcd-Index: 7"]),
        (["Content-Length: 1\r\n", "Content-Length: 2\r\n"], ["Content-Length: 2"]),
        (["Content-Length:\r\n"], []),
        (
            ["Content-Length: 1\r\n", "Transfer-Encoding: gzip, Chunked\r\n"],
            ["Transfer-Encoding: chunked"],
        ),
        (["Transfer-Encoding: chunked, gzip\r\n"], []),
        (["X: y\r\n"] * 999 + ["Location: /\r\n"], ["Location: /"]),
    ],
)
def test_what_a_strict_reader_is_given(lines: list[str], headers: list[str]) -> None:
    """A length that is lost makes each probe wait for its timeout."""
    found = tamed([line.encode() for line in lines])
    assert [b": ".join(header).decode() for header in found] == headers


@given(st.lists(st.binary(max_size=20)))
def test_any_lines_can_be_put_right(lines: list[bytes]) -> None:
    """A service gone wrong would end `watch`."""
    try:
        found = tamed(lines)
    except HTTPException:
        assert any(b"\0" in line for line in lines)
        return
    for name, value in found:
        assert name
        assert not {10, 13, 0} & set(name + value)

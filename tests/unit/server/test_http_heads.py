"""Heads, without a socket: framing, targets, and the bytes that an answer begins with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.server.http.heads import (
    CHUNKED,
    Refusal,
    answer_start,
    read_framing,
    read_target,
    status_line,
    whole_answer,
)
from flashsale.server.response import ok, rejected

HOST = (b"host", b"a")
DATE = b"Sun, 29 Nov 2026 14:00:00 GMT"
LINE = status_line(200, DATE)


@pytest.mark.parametrize(
    ("version", "headers", "framing"),
    [
        ("1.1", [], (0, False)),
        ("1.1", [(b"content-length", b"7")], (7, False)),
        ("1.1", [(b"content-length", b"100")], (100, False)),
        ("1.1", [(b"transfer-encoding", b"Chunked")], (CHUNKED, False)),
        ("1.1", [(b"content-length", b"7"), (b"expect", b"100-Continue")], (7, True)),
        ("1.1", [(b"expect", b"100-continue")], (0, False)),
        ("1.0", [(b"content-length", b"7"), (b"expect", b"100-continue")], (7, False)),
    ],
)
def test_framing(
    version: str, headers: list[tuple[bytes, bytes]], framing: tuple[int, bool]
) -> None:
    assert read_framing(version, [HOST, *headers], 100) == framing


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("1.1", [(b"host", b"a b")], 400),
        ("0.9", [HOST], 400),
        ("2.0", [HOST], 400),
        ("1.1", [HOST, (b"content-length", b"x")], 400),
        ("1.1", [HOST, (b"content-length", "٣".encode())], 400),
        ("1.1", [HOST, (b"content-length", b"101")], 413),
        ("1.1", [HOST, (b"content-length", b"9" * 5_000)], 413),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"chunked")] * 2, 400),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"expect", b"a miracle")], 417),
    ],
)
def test_framing_refused(version: str, headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(Refusal) as refused:
        read_framing(version, headers, 100)
    assert refused.value.response.status == status


def test_http_1_0_needs_no_host() -> None:
    assert read_framing("1.0", [], 100) == (0, False)


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (b"/", ("/", b"/", b"")),
        (b"/a?b=c?d", ("/a", b"/a", b"b=c?d")),
        (b"/a%20%C3%A9", ("/a é", b"/a%20%C3%A9", b"")),
        (b"http://a", ("/", b"/", b"")),
        (b"http://a?b", ("/", b"/", b"b")),
        (b"HTTPS://[::1]:8/a/b?c", ("/a/b", b"/a/b", b"c")),
    ],
)
def test_targets(target: bytes, read: tuple[str, bytes, bytes]) -> None:
    assert read_target("GET", target) == read


def test_asterisk_is_for_options() -> None:
    assert read_target("OPTIONS", b"*") == ("*", b"*", b"")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", b"*"),
        ("GET", b""),
        ("GET", b"a"),
        ("GET", b"ftp://a/"),
        ("GET", b"http:///a"),
        ("GET", b"http://a@b/"),
        ("GET", b"/a#b"),
        ("GET", b"/\xe9"),
        ("CONNECT", b"a:80"),
        ("CONNECT", b"/a"),
    ],
)
def test_targets_refused(method: str, target: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_target(method, target)
    assert refused.value.response.status == 400


@given(st.binary(max_size=40))
def test_any_target_is_read_or_refused(target: bytes) -> None:
    try:
        path, raw_path, query = read_target("GET", target)
    except Refusal:
        return
    assert path.startswith("/")
    assert raw_path.isascii()
    assert target.endswith(query)


def test_the_head_of_an_answer() -> None:
    response = rejected("No", 404, (b"x-a", b"b"))
    head, length, closes = answer_start(LINE, response.headers)
    assert head == (
        LINE
        + b"content-type: application/json\r\ncontent-length: %d\r\nx-a: b\r\n" % len(response.body)
    )
    assert (length, closes) == (len(response.body), False)
    assert answer_start(LINE, [(b"connection", b"Close")])[1:] == (None, True)
    assert answer_start(LINE, [(b"connection", b"keep-alive")])[1:] == (None, False)


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary()), max_size=4))
def test_no_header_splits_an_answer(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever an application takes over from a client cannot end its line."""
    try:
        head, _, _ = answer_start(status_line(200, DATE), headers)
    except ValueError:
        return
    assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r") == len(headers) + 2


def test_the_first_lines() -> None:
    assert status_line(404, DATE) == b"HTTP/1.1 404 Not Found\r\ndate: %b\r\n" % DATE
    assert status_line(599, DATE).startswith(b"HTTP/1.1 599 \r\n")
    for status in (0, 100, 199, 1000):
        with pytest.raises(ValueError, match="final status"):
            status_line(status, DATE)


def test_an_answer_of_the_server_itself() -> None:
    response = ok(1)
    whole = whole_answer(status_line(200, DATE), response)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.endswith(b"connection: close")
    assert body == response.body
    assert whole_answer(status_line(200, DATE), response, with_body=False) == head + b"\r\n\r\n"

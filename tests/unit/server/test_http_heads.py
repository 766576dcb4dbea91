"""Heads, without a socket: framing, targets, and the bytes that an answer begins with."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashsale.server.http import heads
from flashsale.server.http.exchange import ANSWER, Exchange
from flashsale.server.http.heads import (
    CHUNKED,
    Ends,
    Refusal,
    answer_start,
    make_scope,
    read_framing,
    read_plain_head,
    read_target,
    status_line,
    whole_answer,
)
from flashsale.server.http.incoming import Incoming, Sizes
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
    assert head == LINE + response.head
    assert response.head == (
        b"content-type: application/json\r\nx-a: b\r\ncontent-length: %d\r\n"
        b"x-content-type-options: nosniff\r\n" % len(response.body)
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


# Plain heads, read without the parser ------------------------------------------------------------

PLAIN = b"POST /voucher-order/seckill/1?a=%20 HTTP/1.1\r\nHost: a.b:80\r\nauthorization: t\r\n\r\n"

_NAMES = st.sampled_from(
    [
        *(b"Host", b"host", b"authorization", b"Content-Length", b"content-length", b"Accept"),
        *(b"User-Agent", b"X-Real-IP", b"x-real-ip", b"Transfer-Encoding", b"Connection"),
        *(b"Expect", b"X-Unknown", b"", b" Host", b"Cookie"),
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        [b"0", b"00", b"1", b"a", b"a:80", b" a ", b"chunked", b"close", b"", b"a b: c"]
    ),
    st.binary(max_size=4),
)
_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\r\n"])
_SEPARATORS = st.sampled_from([b": ", b": ", b": ", b":", b" : ", b":\t"])
_LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"POST /a/1?b=%20&c=d HTTP/1.1", b"HEAD /x HTTP/1.1"),
        *(b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"GET /# HTTP/1.1", b"get / HTTP/1.1"),
        *(b"CONNECT a:1 HTTP/1.1", b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b""),
    ]
)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    data = draw(_LINES) + b"\r\n"
    if draw(st.booleans()):
        data += b"Host: a\r\n"
    for _ in range(draw(st.integers(0, 4))):
        data += draw(_NAMES) + draw(_SEPARATORS) + draw(_VALUES) + draw(_ENDS)
    return data + b"\r\n" + draw(st.sampled_from([b"", b"", b"", b"x", PLAIN]))


class _Parsed:
    """What the parser makes of bytes: requests that are whole."""

    def __init__(self, data: bytes) -> None:
        line: list[Exchange] = []
        sizes = Sizes(target_max=100, head_max=4_096, headers_max=50, body_max=100, body_max_of={})
        self.incoming = Incoming(_NOBODY, line, Ends(None, None), sizes)
        self.line = line
        for start in range(0, len(data), 3):  # no plain head comes in slices
            if self.incoming.is_over or self.incoming.feed(data[start : start + 3]) is not None:
                self.is_refused = True
                return
        self.is_refused = False


_NOBODY: Any = None


@given(_requests())
@example(PLAIN)
@example(PLAIN + PLAIN)
@example(PLAIN.replace(b"a.b:80", b"a\r\nHost: b"))
@example(PLAIN.replace(b"\r\nauth", b"\r\nContent-Length: 1\r\nauth"))
def test_a_plain_head_is_read_as_the_parser_reads_it(data: bytes) -> None:
    found = read_plain_head(data)
    if found is None:
        return
    parsed = _Parsed(data)
    assert not parsed.is_refused
    (exchange,) = parsed.line
    method, target, headers = found
    plain = make_scope(method, "1.1", target, headers, Ends(None, None))
    assert {**plain, ANSWER: None} == {**exchange.scope, ANSWER: None}
    assert exchange.is_whole
    assert exchange.keeps
    assert not exchange.refusal


def test_what_a_plain_head_is() -> None:
    assert read_plain_head(PLAIN) == (
        "POST",
        ("/voucher-order/seckill/1", b"/voucher-order/seckill/1", b"a=%20"),
        [(b"host", b"a.b:80"), (b"authorization", b"t")],
    )
    doubtful = (
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Host", b"Hosts"),
        (b"Host: a.b:80", b"Host: a/b"),
        (b"Host: a.b:80", b"Host: a\r\nhost: a"),
        (b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
        (b": t", b":t"),
        (b": t", b": \xff"),
        (b": t", b": t\r\n folded"),
        (b"\r\nauth", b"\nauth"),
        (b"/voucher", b"/#voucher"),
    )
    for old, new in doubtful:
        assert read_plain_head(PLAIN.replace(old, new)) is None, new


def test_what_is_remembered_of_heads_is_bounded_and_holds_no_token() -> None:
    for number in range(3_000):
        line = b"X-Request-Id: %d\r\nUser-Agent: agent %d\r\n\r\n" % (number, number)
        assert read_plain_head(PLAIN[:-2] + line) is not None
    assert 0 < len(heads._SEEN) <= 1_024
    assert not any(b"authorization" in seen or b"Request-Id" in seen for seen in heads._SEEN)

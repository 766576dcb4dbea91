"""Asking a stranger: whatever it sends, the answer or one line comes in time and within bounds."""

import gzip
import ssl
import time
import tracemalloc
import zlib

import pytest
from rig.hostile_server import answering, http

from flashsale.asking import UnansweredError, ask_once, client

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"H"),
        (HEAD, b"x"),
        (HEAD, b"x: y\r\n"),
        (HEAD + b"content-length: 1000000\r\n\r\n", b"x"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 103 Hints\r\n\r\n"),
    ],
)
def test_an_answer_that_drips_ends_with_its_time(first: bytes, then: bytes) -> None:
    begun = time.monotonic()
    with answering(first, then, pause_s=0.05) as url, pytest.raises(UnansweredError):
        ask_once(url, total_s=0.5)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"\r\n", b"x" * 100_000),
        (b"transfer-encoding: chunked\r\n\r\n", b"186A0\r\n%s\r\n" % (b"x" * 100_000)),
        (b"x-endless: ", b"x" * 100_000),
    ],
)
def test_an_answer_without_an_end_is_read_no_further(head: bytes, piece: bytes) -> None:
    with (
        answering(HEAD + head, piece) as url,
        pytest.raises(UnansweredError, match=r"bytes|too long"),
    ):
        ask_once(url, total_s=20)


def test_whom_everybody_trusts_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *given, **named: reads.append(named)
    )
    for url in ("", "http://shop.example", "https://shop.example"):
        client(url)
    assert len(reads) <= 1


def test_what_is_packed_is_unpacked_within_the_bound() -> None:
    requests: list[bytes] = []
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        answer = http("200 OK", pack(b'{"a":1}'), f"content-encoding: {encoding}")
        with answering(answer, requests=requests) as url:
            assert ask_once(url, total_s=5).json() == {"a": 1}
    assert b"accept-encoding: identity" in requests[0]
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    tracemalloc.start()
    try:
        with (
            answering(http("200 OK", bomb, "content-encoding: gzip")) as url,
            pytest.raises(UnansweredError, match="more than 65,536 bytes"),
        ):
            ask_once(url, total_s=20)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "gzip"])
def test_what_cannot_be_unpacked_is_no_answer(encoding: str) -> None:
    answer = http("200 OK", b"{}", f"content-encoding: {encoding}")
    with answering(answer) as url, pytest.raises(UnansweredError):
        ask_once(url, total_s=5)


@pytest.mark.parametrize("depth", [200, 300, 900, 1_010, 1_100, 30_000])
def test_json_of_any_depth_is_read_or_is_none(depth: int) -> None:
    """What is read can be shown: between a parser's depth and that of Python lie a few dozen."""
    with answering(http("200 OK", b"[" * depth + b"]" * depth)) as url:
        found = ask_once(url, total_s=5).json()
    assert str(found) == ("[" * depth + "]" * depth if depth < 250 else "None")


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999", "ftp://x", "nothing", ""])
def test_what_is_no_url_is_no_answer(url: str) -> None:
    with pytest.raises(UnansweredError):
        ask_once(url, total_s=5)

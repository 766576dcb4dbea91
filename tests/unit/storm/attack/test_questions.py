import asyncio
import gzip
import time
from typing import Any

import orjson
import pytest
from rig.hostile_server import answering, http

from flashsale.errors import UnreachableError
from flashsale.scenario.target import Target
from flashsale.storm.attack import questions
from flashsale.storm.attack.questions import (
    Question,
    Reply,
    Resolver,
    preflight,
    preflight_reads,
    read_reply,
)


@pytest.mark.parametrize(
    ("status", "body", "reply"),
    [
        (200, {"success": True, "data": {"state": "none"}}, Reply.NONE),
        (200, {"success": True, "data": {"state": "row", "orderId": "7", "status": 1}}, "7"),
        (200, {"success": True, "data": {"state": "receipt", "orderId": "9"}}, "9"),
        (200, {"success": True, "data": {"state": "row"}}, Reply.NEVER),
        (200, {"success": True, "data": {"state": "row", "orderId": "x"}}, Reply.NEVER),
        (200, {"success": True, "data": 7}, Reply.NEVER),
        (200, {"success": False, "errorMsg": "no"}, Reply.NEVER),
        (
            200,
            {"success": True, "data": {"orderId": orjson.loads("[" * 900 + "]" * 900)}},
            Reply.NEVER,
        ),
        (200, None, Reply.NEVER),
        (200, [], Reply.NEVER),
        (401, None, Reply.NEVER),
        (404, None, Reply.NEVER),
        (429, None, Reply.LATER),
        (500, None, Reply.LATER),
        (503, {"success": False}, Reply.LATER),
    ],
)
def test_a_status_is_an_order_or_none_or_later_or_never(
    status: int, body: Any, reply: str | Reply
) -> None:
    assert read_reply(status, body) == reply


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("location", "cure"),
    [
        ("http://elsewhere/", "give the address that answers by itself as --base-url"),
        ("https://127.0.0.1/", "TLS is not spoken here"),
    ],
)
def test_a_target_that_sends_elsewhere_is_told_before_anything_is_fired(
    status: str, location: str, cure: str
) -> None:
    with answering(http(status, b"", f"location: {location}")) as url:
        for ask in (preflight_reads, lambda target: preflight(target, None, "token")):
            with pytest.raises(UnreachableError, match=cure) as raised:
                ask(Target.at(url))
            assert f"answers {status[:3]} and sends to http" in str(raised.value)
            assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(bytes(10_000_000))),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x"),
    ],
)
def test_a_preflight_reads_no_more_than_it_asks_for(first: bytes, then: bytes) -> None:
    """That somebody answers, and with which status, is in the head."""
    begun = time.monotonic()
    with answering(first, then, pause_s=0.01) as url:
        preflight(Target.at(url), None, "token")
    assert time.monotonic() - begun < 4


def test_a_health_route_that_drips_its_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_PREFLIGHT_TIMEOUT_S", 0.3)
    with (
        answering(b"HTTP/1.1 200 OK\r\n", b"x", pause_s=0.05) as url,
        pytest.raises(UnreachableError, match=r"no whole answer within 0\.3 s.*--base-url"),
    ):
        preflight_reads(Target.at(url))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (
            http("200 OK", b'{"success":true,"data":{"orderId":%s}}' % (b"[" * 900 + b"]" * 900)),
            b"",
        ),
        (http("200 OK", b"[" * 30_000), b""),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(bytes(10_000_000))),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    ],
)
def test_a_status_route_cannot_hold_up_or_end_the_asking(first: bytes, then: bytes) -> None:
    begun = time.monotonic()
    with answering(first, then, pause_s=0.001) as url:
        resolver = Resolver(url, 1_000, lambda *_: None)
        asyncio.run(resolver.run([Question(n, 1, "token", 0) for n in range(3)]))
    assert resolver.answered == 0
    assert time.monotonic() - begun < 5

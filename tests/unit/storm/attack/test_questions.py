import asyncio
import gzip
import time
from typing import Any

import orjson
import pytest
from httpx import Headers
from rig.hostile_server import answering as hostile
from rig.hostile_server import http as raw
from rig.scripted_sale import Act, ScriptedSale, http
from rig.until import until

from flashsale.asking import Fetched
from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.rules import Meanings, Rule
from flashsale.scenario.shop import Shop
from flashsale.scenario.target import Routes, Target
from flashsale.storm.attack import questions
from flashsale.storm.attack.questions import (
    Question,
    Reply,
    Resolver,
    preflight,
    read_by,
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


def test_the_answer_of_a_shop_may_have_headers_in_any_script() -> None:
    sold = Meanings((Rule(header={"x-odd": ".*"}, outcome="sold", order="header:x-order"),))
    raw = [(b"X-Note", "库存".encode()), (b"X-Order", b"7"), (b"X-Odd", bytes(range(128, 256)))]
    told = Fetched(200, Headers(raw))
    assert read_by(sold, told) == "7"


# Before the storm.


def answering(*statuses: tuple[str, int]) -> ScriptedSale:
    """A server that answers these paths so, and all others with 404."""
    known = dict(statuses)
    return ScriptedSale(lambda visit: Act(http(known.get(visit.path, 404))))


ELSEWHERE = "127.0.0.77"
"""An address of this machine at which nobody listens."""


def at(sale: ScriptedSale, *addresses: str) -> Target:
    """The sale's target, as a name that has these addresses."""
    target = Target.at(sale.base_url)
    return Target("http://shop.test", "shop.test", "", addresses or target.addresses, target.port)


@pytest.mark.parametrize(
    ("routes", "asked"),
    [
        (Routes(), ["/healthz", "/user/me"]),
        (Routes(health="/up"), ["/up", "/user/me"]),
        (Routes(session=""), ["/healthz"]),
        (Routes(health="", session="/whoami"), ["/whoami"]),
        (Routes(health="", session=""), []),
    ],
)
def test_only_the_named_routes_are_asked_and_never_that_of_claims(
    routes: Routes, asked: list[str]
) -> None:
    with answering().open() as sale:
        assert not preflight(at(sale), routes, "abc").is_known
        until(lambda: sale.connections == max(1, len(asked)))
        assert [visit.path for visit in sale.others] == asked
        assert sale.claims == []


def test_without_a_token_no_session_is_asked_for() -> None:
    with answering(("/healthz", 200)).open() as sale:
        assert preflight(at(sale), Routes()).is_known
        assert [(visit.path, visit.token) for visit in sale.others] == [("/healthz", "")]


def test_a_token_that_is_refused_and_a_target_that_is_not_well_are_told() -> None:
    with answering(("/healthz", 200), ("/user/me", 401)).open() as sale:  # noqa: SIM117
        with pytest.raises(
            UsageError, match=r"shop\.test \(127\.0\.0\.1\) does not know the tokens"
        ):
            preflight(at(sale), Routes(), "abc")
    with answering(("/up", 503)).open() as sale:  # noqa: SIM117
        with pytest.raises(UnreachableError, match="/up answers 503"):
            preflight(at(sale), Routes(health="/up"), "abc")


@pytest.mark.parametrize("routes", [Routes(), Routes(health="", session="")])
def test_addresses_are_tried_in_turn_and_the_one_that_answers_is_the_target(
    routes: Routes,
) -> None:
    with answering().open() as sale:
        target = preflight(at(sale, ELSEWHERE, "127.0.0.1", "127.0.0.78"), routes, "abc").target
        until(lambda: sale.connections >= 1)
    assert (target.address, target.addresses) == ("127.0.0.1", ("127.0.0.1",))


@pytest.mark.parametrize("routes", [Routes(), Routes(health="", session="")])
def test_where_none_answers_each_is_named(routes: Routes) -> None:
    with answering().open() as sale:
        target = at(sale, ELSEWHERE, "127.0.0.78")
        with pytest.raises(UnreachableError, match=rf"shop\.test \({ELSEWHERE}: .*; 127.0.0.78: "):
            preflight(target, routes, "abc")


@pytest.mark.parametrize(
    ("routes", "start", "ready"),
    [
        (Routes(), "start a stack with `flashsale serve --detach`", "`flashsale status` calls"),
        (
            Shop().routes,
            "start a stack with `flashsale serve --detach`",
            "`flashsale status` calls",
        ),
        (Routes(health="/up", session=""), "start the shop", "it is ready"),
    ],
)
def test_who_does_not_answer_is_to_be_started_in_their_own_way(
    routes: Routes, start: str, ready: str
) -> None:
    with pytest.raises(UnreachableError, match=f"; {start}, or check --base-url"):
        preflight(Target.at("http://127.0.0.1:1"), routes)
    with (
        hostile(raw("503 Service Unavailable", b"")) as url,
        pytest.raises(UnreachableError, match=f"answers 503; wait until {ready}"),
    ):
        preflight(Target.at(url), routes)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("location", "cure"),
    [
        ("http://elsewhere/", "give the address that answers by itself as --base-url"),
        ("https://127.0.0.1/", "give the https:// address"),
    ],
)
def test_a_target_that_sends_elsewhere_is_told_before_anything_is_fired(
    status: str, location: str, cure: str
) -> None:
    with hostile(raw(status, b"", f"location: {location}")) as url:
        for token in ("", "token"):
            with pytest.raises(UnreachableError, match=cure) as raised:
                preflight(Target.at(url), Routes(), token)
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
    with hostile(first, then, pause_s=0.01) as url:
        preflight(Target.at(url), Routes(), "token")
    assert time.monotonic() - begun < 4


def test_a_health_route_that_drips_its_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_PREFLIGHT_TIMEOUT_S", 0.3)
    with (
        hostile(b"HTTP/1.1 200 OK\r\n", b"x", pause_s=0.05) as url,
        pytest.raises(UnreachableError, match=r"no whole answer within 0\.3 s.*--base-url"),
    ):
        preflight(Target.at(url), Routes())


@pytest.mark.parametrize(
    ("first", "then"),
    [
        *(
            (raw("200 OK", b'{"success":true,"data":{"orderId":%s}}' % (b"[" * n + b"]" * n)), b"")
            for n in (250, 900, 1_010, 1_021)
        ),
        (raw("200 OK", b"[" * 30_000), b""),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(bytes(10_000_000))),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    ],
)
def test_a_status_route_cannot_hold_up_or_end_the_asking(first: bytes, then: bytes) -> None:
    begun = time.monotonic()
    with hostile(first, then, pause_s=0.001) as url:
        resolver = Resolver(Target.at(url), Routes().status, 1_000, lambda *_: None)
        asyncio.run(resolver.run([Question(n, 1, "token", 0) for n in range(3)]))
    assert resolver.answered == 0
    assert time.monotonic() - begun < 5

"""The application: limits, the answer to every kind of trouble, and nothing leaked between."""

import asyncio
from typing import Any

import pytest
import structlog
from rig.asgi import ask

from flashsale.errors import Indeterminate, Unavailable
from flashsale.server.app import App, Router
from flashsale.server.request import Request
from flashsale.server.response import Response, ok
from flashsale.settings import ReplicaSettings

pytestmark = pytest.mark.anyio

LIMITS = ReplicaSettings(body_bytes_max=100, header_bytes_max=512)


class Routes:
    """Handlers that do what a test needs."""

    def __init__(self) -> None:
        self.trouble: BaseException | None = None
        self.going_on = asyncio.Event()
        self.seen: Request | None = None

    async def get(self, request: Request, tail: str) -> Response:
        self.seen = request
        if self.trouble is not None:
            raise self.trouble
        return ok({"tail": tail, "token": request.token, "q": request.query("q")})

    async def post(self, request: Request, tail: str) -> Response:
        return ok(len(await request.body()))

    async def json(self, request: Request, tail: str) -> Response:
        return ok(await request.json())

    async def slow(self, request: Request, tail: str) -> Response:
        await self.going_on.wait()
        return ok()


@pytest.fixture
def routes() -> Routes:
    return Routes()


@pytest.fixture
def app(routes: Routes) -> App:
    router = Router()
    router.add("GET", "/x/{id}", routes.get)
    router.add("POST", "/x/{id}", routes.post)
    router.add("POST", "/json", routes.json)
    router.add("GET", "/slow", routes.slow)
    return App(router, LIMITS)


# Heads --------------------------------------------------------------------------------------------


async def test_what_a_handler_sees(app: App) -> None:
    reply = await ask(app, "GET", "/x/7", {"Authorization": "tok\xe9n"}, query="q=a%20b&q=c&r=")
    assert reply.json == {"success": True, "data": {"tail": "7", "token": "tokén", "q": "a b"}}


async def test_not_found_and_not_allowed(app: App) -> None:
    assert (await ask(app, "GET", "/nowhere")).status == 404
    reply = await ask(app, "PUT", "/x/7")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_headers_too_large(app: App) -> None:
    assert (await ask(app, "GET", "/x/7", {"a": "b" * 600})).status == 431
    many = [(f"h{n}", "x") for n in range(200)]
    assert (await ask(app, "GET", "/x/7", many)).status == 431
    assert (await ask(app, "GET", "/x/" + "7" * 600)).status == 431
    assert (await ask(app, "GET", "/x/7", {"a": "b" * 400})).status == 200


async def test_limits_hold_where_there_is_no_route(app: App) -> None:
    assert (await ask(app, "GET", "/nowhere", {"a": "b" * 600})).status == 431
    assert (await ask(app, "POST", "/nowhere", {"content-length": "101"})).status == 413


# Bodies -------------------------------------------------------------------------------------------


async def test_a_body_up_to_the_limit(app: App) -> None:
    reply = await ask(app, "POST", "/x/7", {"content-length": "100"}, body=b"x" * 100)
    assert reply.json["data"] == 100


async def test_a_body_beyond_the_limit(app: App) -> None:
    reply = await ask(app, "POST", "/x/7", {"content-length": "101"}, body=b"x" * 101)
    assert reply.status == 413


async def test_a_body_that_grows_beyond_the_limit(app: App) -> None:
    parts = [b"x" * 40] * 3
    reply = await ask(app, "POST", "/x/7", {"transfer-encoding": "chunked"}, body=parts)
    assert reply.status == 413


async def test_a_body_longer_than_it_said(app: App) -> None:
    reply = await ask(app, "POST", "/x/7", {"content-length": "3"}, body=b"x" * 101)
    assert reply.status == 413


async def test_a_body_in_parts(app: App) -> None:
    parts = [b"ab", b"", b"c"]
    reply = await ask(app, "POST", "/x/7", {"transfer-encoding": "chunked"}, body=parts)
    assert reply.json["data"] == 3


async def test_length_beside_transfer_encoding(app: App) -> None:
    """The ambiguity that request smuggling lives on."""
    for pairs in (
        [("content-length", "3"), ("transfer-encoding", "chunked")],
        [("transfer-encoding", "chunked"), ("content-length", "3")],
        [("transfer-encoding", "chunked"), ("content-length", "0")],
    ):
        assert (await ask(app, "POST", "/x/7", pairs, body=b"abc")).status == 400


async def test_two_lengths_that_differ(app: App) -> None:
    pairs = [("content-length", "101"), ("content-length", "3")]
    assert (await ask(app, "POST", "/x/7", pairs, body=b"abc")).status == 400
    same = [("content-length", "3"), ("content-length", "3")]
    assert (await ask(app, "POST", "/x/7", same, body=b"abc")).status in (200, 400)


@pytest.mark.parametrize("length", ["", "-1", "3.0", "0x3", "three", "+3", "3, 3", "²"])
async def test_a_length_that_is_none(app: App, length: str) -> None:
    assert (await ask(app, "POST", "/x/7", {"content-length": length}, body=b"abc")).status == 400


async def test_a_length_too_long_to_read(app: App) -> None:
    """Python does not read a number of 5,000 digits; that is the caller's fault, not ours."""
    wide = ReplicaSettings(header_bytes_max=16_384)
    app._settings = wide
    reply = await ask(app, "POST", "/x/7", {"content-length": "9" * 5000})
    assert reply.status == 413


async def test_a_body_cut_short(app: App) -> None:
    reply = await ask(app, "POST", "/x/7", {"content-length": "9"}, body=b"abc", hangs_up=True)
    assert reply.status == 400


JSON = {"content-type": "application/json", "content-length": "9"}


async def test_json(app: App) -> None:
    assert (await ask(app, "POST", "/json", JSON, body=b'{"a": 1}')).json["data"] == {"a": 1}
    charset = {**JSON, "content-type": "Application/JSON; charset=utf-8"}
    assert (await ask(app, "POST", "/json", charset, body=b"{}")).status == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [("", 415), ("text/plain", 415), ("application/jsonp", 415), ("text/application/json", 415)],
)
async def test_another_type_of_body(app: App, kind: str, status: int) -> None:
    headers = {"content-length": "2"} | ({"content-type": kind} if kind else {})
    assert (await ask(app, "POST", "/json", headers, body=b"{}")).status == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'"a"', b"null", b"\xff", b"{}{}"])
async def test_a_body_that_is_no_json_object(app: App, body: bytes) -> None:
    assert (await ask(app, "POST", "/json", JSON, body=body)).status == 400


async def test_json_nested_without_end(app: App) -> None:
    app._settings = ReplicaSettings()
    body = b'{"a":' * 10_000
    headers = {**JSON, "content-length": str(len(body))}
    assert (await ask(app, "POST", "/json", headers, body=body)).status == 400


# Trouble ------------------------------------------------------------------------------------------

SECRET = "SELECT secret FROM tb_user; seckill:stock:1"


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (Unavailable(SECRET), 503),
        (Indeterminate(SECRET), 503),
        (KeyError(SECRET), 500),
        (RecursionError(SECRET), 500),
        (ExceptionGroup(SECRET, [ValueError(SECRET)]), 500),
    ],
)
async def test_trouble_is_answered_without_its_details(
    app: App, routes: Routes, trouble: Exception, status: int
) -> None:
    routes.trouble = trouble
    with structlog.testing.capture_logs() as logged:
        reply = await ask(app, "GET", "/x/7")
    assert reply.status == status
    assert reply.json["success"] is False
    for word in ("SELECT", "tb_user", "seckill", "Traceback", "Error:"):
        assert word not in reply.body.decode()
    assert logged, "but the log has them"
    if status == 503:
        assert int(reply.headers["retry-after"]) >= 1


async def test_a_token_is_not_logged(app: App, routes: Routes) -> None:
    routes.trouble = KeyError("x")
    with structlog.testing.capture_logs() as logged:
        await ask(app, "GET", "/x/7", {"authorization": "secret-token"})
    assert "secret-token" not in str(logged)


async def test_a_failed_answer_leaves_nothing_in_flight(app: App, routes: Routes) -> None:
    routes.trouble = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await ask(app, "GET", "/x/7")
    assert app.in_flight == 0


# State --------------------------------------------------------------------------------------------


async def test_what_is_in_flight_and_what_was_answered(app: App, routes: Routes) -> None:
    slow = asyncio.ensure_future(ask(app, "GET", "/slow"))
    await asyncio.sleep(0)
    assert app.in_flight == 1
    assert "in_flight=1" in repr(app)
    routes.going_on.set()
    await slow
    await ask(app, "GET", "/nowhere")
    await ask(app, "GET", "/elsewhere")
    assert app.in_flight == 0
    assert dict(app.answers) == {("GET /slow", 200): 1, ("unknown", 404): 2}


async def test_a_draining_app_answers_and_closes(app: App) -> None:
    assert "connection" not in (await ask(app, "GET", "/x/7")).headers
    app.draining = True
    for _ in range(2):
        assert (await ask(app, "GET", "/x/7")).headers["connection"] == "close"
    app.draining = False
    assert "connection" not in (await ask(app, "GET", "/x/7")).headers


async def test_an_answer_counts_as_in_flight_until_it_is_sent(app: App) -> None:
    """A drain that ends before the last answer has left would cut it off."""
    seen: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        seen.append(app.in_flight)

    scope = {"type": "http", "method": "GET", "path": "/x/7", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    assert seen == [1, 1]
    assert app.in_flight == 0


async def test_lifespan(app: App) -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_other_protocols_are_refused(app: App) -> None:
    with pytest.raises(NotImplementedError):
        await app({"type": "websocket"}, None, None)  # type: ignore[arg-type]


async def test_answers_as_the_family_where_that_is_set(routes: Routes) -> None:
    router = Router()
    router.add("POST", "/json", routes.json)
    app = App(router, ReplicaSettings(family_answers=True))
    typed = {"content-type": "application/json", "content-length": "1"}
    refused = await ask(app, "POST", "/json", typed, body=b"[")
    assert (refused.status, refused.json["success"]) == (200, False)
    assert (await ask(app, "GET", "/nowhere")).status == 404, "a route of nobody's is no refusal"


async def test_a_picture_may_be_larger_than_any_other_body(routes: Routes) -> None:
    router = Router()
    for path in ("/upload/blog", "/upload/other"):
        router.add("POST", path, routes.post)
    app = App(router, ReplicaSettings(body_bytes_max=100, picture_bytes_max=2_000))
    for path, size, status in (
        ("/upload/blog", 6_096, 200),
        ("/upload/blog", 6_097, 413),
        ("/upload/other", 101, 413),
    ):
        sized = {"content-length": str(size)}
        assert (await ask(app, "POST", path, sized, body=b"x" * size)).status == status
        chunked = {"transfer-encoding": "chunked"}
        assert (await ask(app, "POST", path, chunked, body=[b"x" * size])).status == status

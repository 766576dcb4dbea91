"""The replica's HTTP server on real sockets: order, bounds, patience, and how it ends."""

import asyncio
import contextvars
import gc
import resource
import socket
import stat
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from rig.http_client import Client
from rig.http_corpus import chunked, post, request
from rig.http_servers import application
from rig.until import eventually

from flashsale.server.http.exchange import Application
from flashsale.server.http.server import Server, listen, listen_unix
from flashsale.settings import ReplicaSettings

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}


@asynccontextmanager
async def served(app: Application, **limits: Any) -> AsyncIterator[tuple[Server, int]]:
    """A server of `app` in this process, and its port."""
    server = Server(app, ReplicaSettings(**limits))
    (listener,) = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await server.start([listener])
    try:
        yield server, port
    finally:
        await server.aclose()


def http(serve: Callable[[Any, Any, Any], Any]) -> Application:
    """An application without a lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await serve(scope, receive, send)

    return app


def answering(body: bytes = b"ok", *headers: tuple[bytes, bytes]) -> Application:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return http(serve)


# What the application sees ------------------------------------------------------------------------


async def test_scope() -> None:
    seen: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive()))
        await answering()(scope, receive, send)

    async with served(http(serve)) as (_, port):
        client = await Client.at(port)
        data = post("X-A:  b ", "x-a: c", "Content-Length: 2", target=b"/a%20b?c=%20d", body=b"hi")
        await client.say(data)
        assert (await client.hear()).status == 200
        mine = client.writer.get_extra_info("sockname")[:2]
        client.leave()
    scope, message = seen[0]
    assert message == {"type": "http.request", "body": b"hi", "more_body": False}
    assert scope["method"] == "POST"
    assert (scope["path"], scope["raw_path"]) == ("/a b", b"/a%20b")
    assert scope["query_string"] == b"c=%20d"
    assert scope["http_version"] == "1.1"
    assert scope["headers"] == [
        (b"host", b"sale.example"),
        (b"x-a", b"b"),
        (b"x-a", b"c"),
        (b"content-length", b"2"),
    ]
    assert scope["client"] == mine
    assert scope["server"] == ("127.0.0.1", port)


async def test_every_request_has_a_task_and_context_of_its_own() -> None:
    """Whatever one leaves in its context, no other sees; time-outs work before and after a wait."""
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    tasks: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        found = who.get()
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if scope["path"] != "/clean":
            who.set(scope["path"])
        if scope["path"] == "/late":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(10)
            assert task.cancelling() == 0
        if scope["path"] == "/wait":
            await asyncio.sleep(0)
            await asyncio.wait_for(asyncio.sleep(0.001), 1)
        assert asyncio.current_task() is task
        assert who.get() == (scope["path"] if scope["path"] != "/clean" else found)
        await answering(found.encode())(scope, receive, send)

    async with served(http(serve)) as (_, port):
        clients = [await Client.at(port) for _ in range(8)]
        for path in (b"/clean", b"/wait", b"/clean", b"/late", b"/set", b"/clean", b"/clean") * 3:
            for client in clients:
                await client.say(request(target=path))
            answers = [await client.hear() for client in clients]
            assert {answer.body for answer in answers} == {b"nobody"}
        for client in clients:
            client.leave()
    assert len(set(map(id, tasks))) < len(tasks), "tasks that were left clean serve again"


async def test_a_request_that_cancels_its_own_task_hears_of_it_alone() -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if scope["path"] == "/cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(10)
        elif scope["path"] == "/cancelled":
            task.cancel()
            await asyncio.sleep(10)
        await asyncio.sleep(0)
        await answering()(scope, receive, send)

    with structlog.testing.capture_logs():
        async with served(http(serve)) as (_, port):
            for path, status in ((b"/", 200), (b"/cancel", 200), (b"/cancelled", 500)) * 3:
                client = await Client.at(port)
                await client.say(request(target=path))
                assert (await client.hear()).status == status
                client.leave()


async def test_disconnect_is_told_and_nothing_is_cancelled() -> None:
    told: list[str] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        told.append((await receive())["type"])
        told.append((await receive())["type"])
        await answering()(scope, receive, send)  # nobody hears it, and that is no error
        told.append("ended")

    async with served(http(serve)) as (_, port):
        for data in (post("Content-Length: 2", body=b"hi"), post("Content-Length: 9", body=b"hi")):
            told.clear()
            client = await Client.at(port)
            await client.say(data)
            await eventually(lambda: told)
            client.leave()
            await eventually(lambda: "ended" in told)
            assert told == ["http.request", "http.disconnect", "ended"]


# Answers ------------------------------------------------------------------------------------------


async def test_streamed_answers() -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async with served(http(serve)) as (_, port):
        client = await Client.at(port)
        for _ in range(2):
            await client.say(request())
            answer = await client.hear()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"onetwo"
        await client.say(request(method=b"HEAD"), request("Connection: close"))
        assert (await client.hear(bodyless=True)).headers["transfer-encoding"] == "chunked"
        assert (await client.hear()).headers["connection"] == "close"
        assert await client.ended() == b""
        client.leave()
        old = await Client.at(port)
        await old.say(request(version=b"HTTP/1.0"))
        head, _, body = (await old.ended()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert body == b"onetwo"
        old.leave()


async def test_head_and_length() -> None:
    async with served(answering(b"hello")) as (_, port):
        client = await Client.at(port)
        await client.say(request(method=b"HEAD"), request())
        head, get = await client.hear(bodyless=True), await client.hear()
        assert head.headers["content-length"] == get.headers["content-length"] == "5"
        assert get.body == b"hello"
        assert set(get.headers) == {"date", "content-length"}, "and no server's name"
        client.leave()


async def _raises(scope: Any, receive: Any, send: Any) -> None:
    raise KeyError("secret")


async def _raises_late(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.001)
    raise KeyError("secret")


async def _says_nothing(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def _begins_with_the_body(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def _splits_the_head(scope: Any, receive: Any, send: Any) -> None:
    await send({**START, "headers": [(b"x", b"a\r\nset-cookie: b")]})


async def _says_too_much(scope: Any, receive: Any, send: Any) -> None:
    await send({**START, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": b"xyz"})


async def _frames_by_itself(scope: Any, receive: Any, send: Any) -> None:
    await send({**START, "headers": [(b"transfer-encoding", b"chunked")]})


async def _says_100(scope: Any, receive: Any, send: Any) -> None:
    await send({**START, "status": 100})


BROKEN = (
    *(_raises, _raises_late, _says_nothing, _begins_with_the_body),
    *(_splits_the_head, _says_too_much, _frames_by_itself, _says_100),
)


@pytest.mark.parametrize("serve", BROKEN, ids=lambda one: one.__name__)
async def test_an_application_that_fails_is_500_and_logged(serve: Any) -> None:
    with structlog.testing.capture_logs() as logged:
        async with served(http(serve)) as (_, port):
            client = await Client.at(port)
            await client.say(request())
            answer = await client.hear()
            assert answer.status == 500
            assert answer.body == b'{"success":false,"errorMsg":"Internal error"}'
            assert await client.ended() == b""
            client.leave()
    assert len(logged) == 1
    assert logged[0]["log_level"] == "error"


async def test_an_answer_that_breaks_off_is_torn_and_never_looks_whole() -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        if scope["path"] == "/raise":
            raise KeyError("secret")
        await send({"type": "http.response.body"})

    with structlog.testing.capture_logs() as logged:
        async with served(http(serve)) as (_, port):
            for path in (b"/raise", b"/short"):
                client = await Client.at(port)
                await client.say(request(target=path))
                with pytest.raises((asyncio.IncompleteReadError, OSError)):
                    await client.hear()
                client.leave()
    assert len(logged) == 2


# Unread bodies ------------------------------------------------------------------------------------


async def test_a_refused_upload_hears_why_and_no_reset() -> None:
    """The whole body is on its way when 413 is told; the client reads only after it has sent."""
    async with served(application()) as (_, port):
        for data in (
            post("Content-Length: 3000000", body=b"x" * 3_000_000),
            chunked(b"2dc6c0\r\n" + b"x" * 3_000_000 + b"\r\n0\r\n\r\n"),
        ):
            client = await Client.at(port)
            await client.say(data)
            assert (await client.hear()).status == 413
            assert await client.ended() == b""
            client.leave()


async def test_an_answer_before_a_chunked_body_announces_the_end() -> None:
    async with served(answering()) as (_, port):
        client = await Client.at(port)
        await client.say(chunked(b"5\r\nhel"))
        answer = await client.hear()
        assert answer.headers["connection"] == "close"
        assert await client.ended() == b""
        client.leave()


async def test_an_answer_before_a_body_of_known_length_keeps_the_connection() -> None:
    async with served(answering()) as (_, port):
        client = await Client.at(port)
        await client.say(post("Content-Length: 6", body=b"abc"))
        assert "connection" not in (await client.hear()).headers
        await client.say(b"def" + request())
        assert (await client.hear()).status == 200
        client.leave()


# Patience -----------------------------------------------------------------------------------------


async def test_time_limits() -> None:
    limits = {"header_timeout_ms": 100, "body_timeout_ms": 100, "idle_timeout_ms": 600}
    async with served(application(), **limits) as (_, port):
        head, body, unread, idle = [await Client.at(port) for _ in range(4)]
        await head.say(b"GET /get HTT")
        await body.say(post("Content-Length: 9", body=b"abc"))
        await unread.say(post("Content-Length: 9", body=b"abc", target=b"/unread"))
        await idle.say(request())
        assert (await head.hear()).status == 408
        assert (await body.hear()).status == 408
        assert (await unread.hear()).status == 200
        assert (await idle.hear()).status == 200
        for client in (head, body, unread, idle):
            assert await client.ended() == b""
            client.leave()


async def test_a_head_that_trickles_is_late_nevertheless() -> None:
    async with served(application(), header_timeout_ms=100) as (_, port):
        client = await Client.at(port)
        await client.say(b"GET /get HTTP/1.1\r\nX: ")
        hearing = asyncio.ensure_future(client.hear())
        for _ in range(400):
            if hearing.done():
                break
            await client.say(b"y")
            await asyncio.sleep(0.01)
        assert hearing.done()
        assert hearing.result().status == 408
        client.leave()


async def test_each_head_has_its_own_time_limit() -> None:
    """A pipeline that always ends in the middle of a head is not one late head."""
    whole = request()
    async with served(application(), header_timeout_ms=400) as (_, port):
        client = await Client.at(port)
        await client.say(whole[:10])
        for _ in range(12):
            await asyncio.sleep(0.1)
            await client.say(whole[10:] + whole[:10])
            assert (await client.hear()).status == 200
        client.leave()


async def test_an_answer_may_take_longer_than_any_time_limit() -> None:
    limits = {"header_timeout_ms": 50, "body_timeout_ms": 50, "idle_timeout_ms": 50}
    async with served(application(), **limits) as (_, port):
        client = await Client.at(port)
        await client.say(request(target=b"/slow/900"))
        assert (await client.hear()).status == 200
        client.leave()


# Back-pressure ------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_served_no_more_and_cut_off() -> None:
    """Thousands of requests for 64 KB each: what is held is a few answers, and not for long."""
    began: list[int] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        began.append(1)
        await answering(b"x" * 65_536)(scope, receive, send)

    async with served(http(serve), send_timeout_ms=300) as (server, port):
        silent = socket.create_connection(("127.0.0.1", port))
        silent.setblocking(False)
        loop = asyncio.get_running_loop()
        with silent:
            sending = loop.sock_sendall(silent, request() * 200_000)
            with pytest.raises(OSError):
                await asyncio.wait_for(sending, 8)
            assert len(began) < 500, "the kernel's buffers, and little of ours"
            await eventually(lambda: not server._connections)


async def test_a_streamed_answer_waits_for_a_slow_reader() -> None:
    sent: list[int] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(500):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent.append(1)
        await send({"type": "http.response.body"})

    async with served(http(serve)) as (_, port):
        client = await Client.at(port)
        await client.say(request())
        await eventually(lambda: sent)
        await asyncio.sleep(0.05)
        assert len(sent) < 300
        assert len((await client.hear(within_s=20)).body) == 32_768_000
        client.leave()


async def test_a_deep_pipeline_is_answered_in_order_and_held_in_part() -> None:
    waiting: list[int] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        waiting.append(1)
        await asyncio.sleep(0.05 if len(waiting) == 1 else 0)
        await answering(scope["raw_path"])(scope, receive, send)

    async with served(http(serve), pipeline_max=4) as (server, port):
        client = await Client.at(port)
        paths = [b"/%d" % number for number in range(2_000)]
        sending = asyncio.ensure_future(client.say(b"".join(request(target=one) for one in paths)))
        await eventually(lambda: waiting)
        (connection,) = server._connections
        # A slice is parsed whole: 4 KB hold about 100 of these.
        assert len(connection._line) < 160
        assert [(await client.hear()).body for _ in paths] == paths
        await sending
        client.leave()


# Many ---------------------------------------------------------------------------------------------


async def test_one_connection_too_many_is_told_so() -> None:
    refused: list[int] = []
    server = Server(answering(), ReplicaSettings(connections_max=2), refused.append)
    (listener,) = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await server.start([listener])
    first, second, third = [await Client.at(port) for _ in range(3)]
    answer = await third.hear()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.body.startswith(b'{"success":false')
    assert await third.ended() == b""
    assert refused == [503]
    first.leave()
    third.leave()
    await eventually(lambda: len(server._connections) == 1)
    fourth = await Client.at(port)
    for client in (second, fourth):
        await client.say(request())
        assert (await client.hear()).status == 200
        client.leave()
    await server.aclose()


async def _idle(number: int) -> int:
    """Bytes of Python's memory that an idle connection costs, with so many of them."""
    async with served(answering()) as (server, port):
        first = await Client.at(port)
        await first.say(request())
        await first.hear()
        gc.collect()
        tracemalloc.start()
        loop = asyncio.get_running_loop()
        clients = []
        for _ in range(number):
            one = socket.socket()
            one.setblocking(False)
            clients.append(one)
            await loop.sock_connect(one, ("127.0.0.1", port))
        await eventually(lambda: len(server._connections) == number + 1, 60)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await first.say(request())
        assert (await first.hear()).status == 200
        for one in clients:
            one.close()
        first.leave()
        return used // number


async def test_2000_idle_connections_cost_little() -> None:
    assert await _idle(2_000) < 6_000


@pytest.mark.slow
async def test_10000_idle_connections_cost_little() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 20_300 if hard == resource.RLIM_INFINITY else min(20_300, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        assert await _idle((most - 300) // 2) < 6_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Sockets ------------------------------------------------------------------------------------------


async def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    seen: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])
        await answering()(scope, receive, send)

    for _ in range(2):  # the second in the place of the dead first one
        server = Server(http(serve), ReplicaSettings())
        await server.start([listen_unix(path)])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = Client(*await asyncio.open_unix_connection(path))
        await client.say(request())
        assert (await client.hear()).status == 200
        client.leave()
        with pytest.raises(OSError, match="in use"):
            listen_unix(path)
        await server.aclose()
    assert seen == [None, None]


async def test_ipv6() -> None:
    server = Server(answering(), ReplicaSettings())
    (listener,) = listen("::1", 0)
    await server.start([listener])
    client = Client(*await asyncio.open_connection("::1", listener.getsockname()[1]))
    await client.say(request())
    assert (await client.hear()).status == 200
    client.leave()
    await server.aclose()


async def test_an_application_that_cannot_start() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no store"})

    server = Server(app, ReplicaSettings())
    with pytest.raises(RuntimeError, match="no store"):
        await server.start([])
    await server.aclose()


# The end ------------------------------------------------------------------------------------------


async def test_a_drain_loses_no_request() -> None:
    """Fifty clients ask on; whoever could connect gets a whole answer, the last one saying so."""
    asked, answered, torn = [0], [0], [0]

    async def ask_on(port: int, keeps: bool) -> None:
        client: Client | None = None
        while True:
            if client is None:
                try:
                    client = await Client.at(port)
                except ConnectionRefusedError:
                    return
            asked[0] += 1
            try:
                await client.say(request(target=b"/slow/5"))
                closes = (await client.hear()).headers.get("connection") == "close"
            except (asyncio.IncompleteReadError, OSError):
                torn[0] += 1
                return
            answered[0] += 1
            if closes or not keeps:
                client.leave()
                client = None

    async with served(application()) as (server, port):
        idle = await Client.at(port)
        clients = [asyncio.ensure_future(ask_on(port, bool(n % 2))) for n in range(50)]
        await eventually(lambda: answered[0] > 200)
        cut_off = await server.drain(10)
        await asyncio.gather(*clients)
        assert await idle.ended() == b""
        idle.leave()
    assert (cut_off, torn[0]) == (0, 0)
    assert asked[0] == answered[0]


async def test_a_drain_waits_for_a_request_whose_client_has_gone() -> None:
    """It may be a claim, and is not torn from what it does."""
    told: list[str] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        told.append("began")
        await asyncio.sleep(0.3)
        told.append("ended")

    async with served(http(serve)) as (server, port):
        client = await Client.at(port)
        await client.say(request())
        await eventually(lambda: told)
        client.leave()
        assert await server.drain(5) == 0
        assert told == ["began", "ended"]


async def test_a_drain_ends_whatever_a_client_does() -> None:
    async with served(application()) as (server, port):
        head, body, slow = [await Client.at(port) for _ in range(3)]
        await head.say(b"GET /get HTT")
        await body.say(post("Content-Length: 9", body=b"abc"))
        await slow.say(request(target=b"/slow/60000"))
        await eventually(lambda: sum(one.is_at_work for one in server._connections) == 3)
        async with asyncio.timeout(3):
            assert await server.drain(0.2) == 3
        for client in (head, body, slow):
            with pytest.raises((asyncio.IncompleteReadError, OSError)):
                await client.hear()
            client.leave()

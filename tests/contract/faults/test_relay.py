"""The relay against real sockets: what each trouble does to the bytes of a connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rig.until import eventually

from flashsale.faults.relay import Link, Trouble, Upstream

pytestmark = pytest.mark.anyio


@dataclass
class Echo:
    """A server that answers each line with itself, and knows what reached it."""

    heard: list[bytes] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        how = "closed"
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            how = "reset"
        self.ended.append(how)
        writer.close()


@asynccontextmanager
async def relayed(find: Callable[[], Upstream | None]) -> AsyncIterator[Link]:
    """A link; with it end those who came by it."""
    link = Link(find)
    await link.open()
    try:
        yield link
    finally:
        await link.aclose()
        while Client.opened:
            Client.opened.pop().close()
        await asyncio.sleep(0)


@asynccontextmanager
async def linked(server: Echo) -> AsyncIterator[Link]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    async with relayed(lambda: (host, port)) as link:
        yield link
    listening.close()


class Client:
    """One connection by the link."""

    opened: ClassVar[list[asyncio.StreamWriter]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.opened.append(writer)

    @classmethod
    async def of(cls, link: Link) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", link.port))

    def send(self, line: bytes) -> None:
        self.writer.write(line)

    async def answer(self, within_s: float = 2.0) -> bytes:
        """The next line; empty at the connection's end."""
        async with asyncio.timeout(within_s):
            return await self.reader.readline()

    async def ask(self, line: bytes) -> bytes:
        self.send(line)
        return await self.answer()

    async def is_reset(self) -> bool:
        try:
            async with asyncio.timeout(2.0):
                await self.reader.read()
        except ConnectionResetError:
            return True
        return False

    async def stays_silent(self) -> bool:
        try:
            await self.answer(0.15)
        except TimeoutError:
            return True
        return False


async def test_bytes_pass_both_ways_and_so_does_the_end() -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        assert await client.ask(b"one\n") == b"one\n"
        big = b"x" * 60_000 + b"\n"
        assert await client.ask(big) == big
        client.writer.write_eof()
        assert await client.answer() == b""
    assert server.ended == ["closed"]


async def test_latency_is_added_each_way() -> None:
    async with linked(Echo()) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("latency", latency_ms=60))
        began = time.monotonic()
        assert await client.ask(b"late\n") == b"late\n"
        assert time.monotonic() - began >= 0.12
        await link.heal(1)
        began = time.monotonic()
        await client.ask(b"soon\n")
        assert time.monotonic() - began < 0.1


async def test_latency_does_not_add_up_over_what_is_sent_together() -> None:
    async with linked(Echo()) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("latency", latency_ms=100))
        began = time.monotonic()
        for n in range(5):
            client.send(b"%d\n" % n)
            await asyncio.sleep(0.01)
        assert [await client.answer() for _ in range(5)] == [b"%d\n" % n for n in range(5)]
        assert time.monotonic() - began < 0.45, "a line, and no queue of waits"


async def test_bandwidth_bounds_bytes_a_second() -> None:
    async with linked(Echo()) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("bandwidth", kb_per_s=64))
        began = time.monotonic()
        await client.ask(b"x" * 8_191 + b"\n")
        assert time.monotonic() - began >= 0.2


async def test_slices_arrive_whole() -> None:
    async with linked(Echo()) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("slice", slice_bytes=3))
        assert await client.ask(b"in small pieces\n") == b"in small pieces\n"


async def test_a_reset_ends_connections_and_new_ones_until_it_is_healed() -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        await client.ask(b"one\n")
        await link.trouble(1, Trouble("reset"))
        assert await client.is_reset()
        assert await (await Client.of(link)).is_reset()
        await link.heal(1)
        assert await (await Client.of(link)).ask(b"two\n") == b"two\n"


async def test_refused_is_refused_and_the_port_comes_back() -> None:
    async with linked(Echo()) as link:
        port = link.port
        await link.trouble(1, Trouble("refuse"))
        with pytest.raises(ConnectionRefusedError):
            await Client.of(link)
        await link.heal(1)
        assert link.port == port
        assert await (await Client.of(link)).ask(b"back\n") == b"back\n"


async def test_what_is_stalled_comes_when_it_is_over() -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        await client.ask(b"before\n")
        await link.trouble(1, Trouble("stall"))
        client.send(b"held\n")
        assert await client.stays_silent()
        assert server.heard == [b"before\n"]
        await link.heal(1)
        assert await client.answer() == b"held\n"


async def test_what_is_timed_out_never_comes() -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("timeout"))
        client.send(b"lost\n")
        assert await client.stays_silent()
        await link.heal(1)
        assert await client.is_reset()
    assert server.heard == []


@pytest.mark.parametrize(
    ("what", "reaches"), [("lose_requests", False), ("lose_replies", True), ("cut_reply", True)]
)
async def test_one_direction_is_lost_and_the_other_is_not(what: str, reaches: bool) -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble(what))
        client.send(b"asked\n")
        if what == "cut_reply":
            assert await client.is_reset()
        else:
            assert await client.stays_silent()
        assert server.heard == [b"asked\n"] * reaches
        await link.heal(1)
        assert await (await Client.of(link)).ask(b"again\n") == b"again\n"


async def test_half_open_ends_the_servers_side_alone() -> None:
    server = Echo()
    async with linked(server) as link:
        client = await Client.of(link)
        await client.ask(b"before\n")
        await link.trouble(1, Trouble("half_open"))
        await eventually(lambda: server.ended == ["reset"])
        client.send(b"into nothing\n")
        assert await client.stays_silent()
        assert await (await Client.of(link)).ask(b"new\n") == b"new\n"
        await link.heal(1)
        assert await client.is_reset()
    assert b"into nothing\n" not in server.heard


async def test_two_troubles_are_healed_one_by_one() -> None:
    async with linked(Echo()) as link:
        client = await Client.of(link)
        await link.trouble(1, Trouble("stall"))
        await link.trouble(2, Trouble("stall"))
        await link.heal(1)
        client.send(b"held\n")
        assert await client.stays_silent()
        await link.heal(2)
        assert await client.answer() == b"held\n"


async def test_nobody_behind_the_link_is_a_reset() -> None:
    async with relayed(lambda: None) as link:
        assert await (await Client.of(link)).is_reset()


async def test_a_unix_socket_is_reached_by_a_port(tmp_path: Path) -> None:
    server, path = Echo(), str(tmp_path / "echo.sock")
    listening = await asyncio.start_unix_server(server.serve, path)
    async with relayed(lambda: path) as link:
        assert await (await Client.of(link)).ask(b"by a socket\n") == b"by a socket\n"
        await link.trouble(1, Trouble("reset"))
        await eventually(lambda: len(server.ended) == 1)
    listening.close()


async def test_redis_sees_what_the_link_does(ledger_url: str) -> None:
    """A write whose reply was cut happened, once; the client knows that it may have."""
    host, port = "127.0.0.1", int(ledger_url.rpartition(":")[2].partition("/")[0])
    async with relayed(lambda: (host, port)) as link:
        client = Redis(host=host, port=link.port, protocol=2)
        assert await client.set("greeting", "hello")
        assert await client.get("greeting") == b"hello"
        await link.trouble(1, Trouble("cut_reply"))
        with suppress(RedisError):  # its own retry meets the same fate
            await client.incr("tried")
        await link.heal(1)
        assert int(await client.get("tried")) >= 1
        await client.aclose()

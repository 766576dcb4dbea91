"""What a batch sends, byte by byte, with and without replicas that have to confirm it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hiredis import Reader, pack_command

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.storage.channel import Channel
from flashsale.storage.roles import Confirmation

pytestmark = pytest.mark.anyio
SOLD = Call(script("seckill"), ("k",), ("1", "2"))
BATCH = [SOLD, SOLD]


class Server:
    """Answers OK to whoever signs in, 7 to scripts, and what it is told to those that confirm."""

    def __init__(self, confirms: Sequence[bytes]) -> None:
        self.writes: list[bytes] = []
        self._confirms = list(confirms)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = Reader()
        while data := await reader.read(65_536):
            self.writes.append(data)
            commands.feed(data)
            while (words := commands.gets()) is not False:
                writer.write(self._answer(words))
        writer.close()

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0].startswith(b"EVAL"):
            return b":7\r\n"
        return self._confirms.pop(0) if words[0].startswith(b"WAIT") else b"+OK\r\n"

    @property
    def of_batches(self) -> list[bytes]:
        """The writes that carry scripts."""
        return [write for write in self.writes if b"EVALSHA" in write]


@asynccontextmanager
async def channel_to(
    confirms: Sequence[bytes], confirmation: Confirmation | None
) -> AsyncIterator[tuple[Server, Channel]]:
    server = Server(confirms)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    channel = Channel(
        f"redis://127.0.0.1:{port}/0",
        connections_max=1,
        timeout_s=2.0,
        confirmation=confirmation,
    )
    try:
        yield server, channel
    finally:
        await channel.aclose()
        listening.close()
        await listening.wait_closed()


def packed(*commands: Any) -> bytes:
    return b"".join(pack_command(command) for command in commands)


async def test_by_default_not_one_byte_more_is_sent() -> None:
    async with channel_to([], None) as (server, channel):
        assert await channel.run(BATCH) == [7, 7]
        assert server.of_batches == [packed(SOLD.command(), SOLD.command())]
        assert not [write for write in server.writes if b"WAIT" in write]


@pytest.mark.parametrize(
    ("on_disk", "asked", "confirmed"),
    [
        (False, ("WAIT", 1, 300), b":1\r\n"),
        (True, ("WAITAOF", 1, 1, 300), b"*2\r\n:1\r\n:1\r\n"),
    ],
)
async def test_replicas_are_asked_in_the_same_write(
    on_disk: bool, asked: tuple[object, ...], confirmed: bytes
) -> None:
    confirmation = Confirmation(1, 300, on_disk)
    async with channel_to([confirmed] * 3, confirmation) as (server, channel):
        assert await channel.run(BATCH) == [7, 7]
        assert await channel.run(BATCH) == [7, 7]
        mark = confirmation.commands[0]
        assert server.of_batches == [packed(SOLD.command(), SOLD.command(), mark, asked)] * 2
        assert sum(write.count(b"WAIT") for write in server.writes) == 3, "once when it was opened"


@pytest.mark.parametrize(
    "refused", [b":0\r\n", b"-NOPERM this user has no permissions\r\n", b"$-1\r\n"]
)
async def test_what_is_not_confirmed_is_in_doubt_and_another_connection_has_to_be(
    refused: bytes,
) -> None:
    confirms = [b":1\r\n", refused, refused, b":1\r\n", b":1\r\n"]
    async with channel_to(confirms, Confirmation(1, 300)) as (server, channel):
        assert all(isinstance(reply, Indeterminate) for reply in await channel.run(BATCH))
        with pytest.raises(Unavailable, match="Redis was not asked"):
            await channel.run(BATCH)
        assert len(server.of_batches) == channel.unconfirmed == 1
        assert await channel.run(BATCH) == [7, 7]

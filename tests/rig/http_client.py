"""A client that says what it is told to, and tells what came back, byte for byte."""

import asyncio
from collections.abc import Iterable

from rig.http_corpus import Case

PROBE = b"GET /probe HTTP/1.1\r\nHost: sale.example\r\n\r\n"
PAUSE_S = 0.01
SILENCE_S = 3.0


class Answer:
    """One answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.headers} {self.body[:80]!r}>"


class Client:
    """A connection to a server on this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def at(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def say(self, *parts: bytes) -> None:
        """Send each part by itself."""
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(PAUSE_S / len(parts))
            self.writer.write(part)
            await self.writer.drain()

    async def hear(self, *, bodyless: bool = False, within_s: float = SILENCE_S) -> Answer:
        """The next answer. Raises IncompleteReadError at the end, TimeoutError in silence."""
        async with asyncio.timeout(within_s):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            pairs = [line.partition(": ")[::2] for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            assert len(headers) == len(pairs), head
            status = int(first.split(" ")[1])
            if bodyless or status < 200:
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Answer(status, headers, await self._chunks())
            body = await self.reader.readexactly(int(headers["content-length"]))
            return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        parts = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            parts.append((await self.reader.readexactly(size + 2))[:-2])
            if not size:
                return b"".join(parts)

    async def ended(self, within_s: float = SILENCE_S) -> bytes:
        """What else comes until the server ends its side."""
        async with asyncio.timeout(within_s):
            return await self.reader.read()

    def end(self) -> None:
        """End our side, and listen on."""
        self.writer.write_eof()

    def leave(self) -> None:
        """Hang up, at once."""
        self.writer.transport.abort()


async def outcome_of(port: int, case: Case) -> str:
    """What a server makes of a case: statuses, then `kept`, `closed`, `reset` or `silent`."""
    client = await Client.at(port)
    told: list[str] = []
    parts = case.parts
    try:
        if case.waits:
            await client.say(parts[0])
            told.append(str((await client.hear()).status))
            parts = parts[1:]
        sending = asyncio.ensure_future(client.say(*parts))
        try:
            await _hear_all(client, case, told, sending)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if not case.ends:
            client.writer.write(PROBE)
        answer = await client.hear()
        kept = answer.status == 200 and b"/probe" in answer.body
        return " ".join([*told, "kept" if kept else f"then {answer.status}"])
    except asyncio.IncompleteReadError as end:
        return " ".join([*told, "torn" if end.partial else "closed"])
    except TimeoutError:
        return " ".join([*told, "silent"])
    except OSError:
        return " ".join([*told, "closed" if told else "reset"])
    finally:
        client.leave()


async def _hear_all(
    client: Client, case: Case, told: list[str], sending: "asyncio.Future[None]"
) -> None:
    if case.ends:
        await sending
        client.end()
    bodyless = case.parts[0].startswith(b"HEAD")
    left = case.requests
    while left:
        last_is_head = case.name == "mixed" and left == 1
        answer = await client.hear(bodyless=bodyless or last_is_head)
        told.append(str(answer.status))
        if answer.status >= 200:
            left -= 1
            if answer.headers.get("connection", "") == "close":
                assert not await client.ended()
                raise asyncio.IncompleteReadError(b"", None)


async def outcomes_of(port: int, cases: Iterable[Case], at_once: int = 40) -> list[str]:
    """As many at a time; in their order."""
    turn = asyncio.Semaphore(at_once)

    async def one(case: Case) -> str:
        async with turn:
            return await outcome_of(port, case)

    return await asyncio.gather(*(one(case) for case in cases))

"""A TCP relay between a client and a real server that can lose answers, or hold them back."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit


class Relay:
    """Forwards bytes both ways until told otherwise.

    `cut_replies_after(n)`: of what the server answers next, the first n bytes pass, then the
    client's connection is cut; the server has executed everything. `hold` keeps requests from the
    server until `release`. `refuse` closes every new connection at once.
    """

    def __init__(self, url: str) -> None:
        server = urlsplit(url)
        self._target = (server.hostname, server.port)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._serving: set[asyncio.Future[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing: int | None = None
        self._for_good = False
        self._gates: set[asyncio.Event] = set()
        self._holds_new = False
        self._is_over = False  # who was let in a moment before is closed, too
        self.refuse = False
        self.cuts = 0
        self.held = asyncio.Event()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self._is_over = True
        self.release()
        self.drop_all()
        for both in self._serving:
            both.cancel()
        await asyncio.sleep(0)
        while open_tasks := [task for task in self._tasks if not task.done()]:
            await asyncio.gather(*open_tasks)

    def cut_replies_after(self, count: int, *, for_good: bool = False) -> None:
        """Lose the next answer, but for its first `count` bytes; once, or all from then on."""
        self._passing = count
        self._for_good = for_good

    def lose_no_more(self) -> None:
        """Let clients and answers pass again, after `cut_replies_after(…, for_good=True)`."""
        self._for_good = self.refuse = False

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server, as a name does after a failover."""
        server = urlsplit(url)
        self._target = (server.hostname, server.port)

    def hold(self, *, new: bool = True) -> None:
        """Keep what clients send, on new connections too; `held` is set once something is kept."""
        for gate in self._gates:
            gate.clear()
        self._holds_new = new
        self.held.clear()

    def release(self) -> None:
        """Send on what was kept, also for clients who have gone: a torn command arrives late."""
        for gate in self._gates:
            gate.set()
        self._holds_new = False

    def drop_all(self) -> None:
        """Close every connection, both ways."""
        for client, server in list(self._pairs):
            client.close()
            server.close()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        if self.refuse or self._is_over:
            client.close()
            return
        try:
            answers, server = await asyncio.open_connection(*self._target)
        except OSError:  # nobody there: the client finds out as it would without a relay
            client.close()
            return
        if self._is_over:
            client.close()
            server.close()
            return
        pair, gate = (client, server), asyncio.Event()
        if not self._holds_new:
            gate.set()
        self._pairs.add(pair)
        self._gates.add(gate)
        both = asyncio.gather(self._forward(reader, server, gate), self._answer(answers, client))
        self._serving.add(both)
        with suppress(asyncio.CancelledError):
            await both
        self._serving.discard(both)
        self._pairs.discard(pair)
        self._gates.discard(gate)
        client.close()
        server.close()

    async def _forward(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with suppress(OSError, RuntimeError):
            while data := await client.read(65536):
                if not gate.is_set():
                    self.held.set()
                    await gate.wait()
                server.write(data)
                await server.drain()
            server.write_eof()

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):
            while data := await server.read(65536):
                lost = self._passing is not None
                client.write(data[: self._passing] if lost else data)
                await client.drain()
                if lost:
                    self._passing = None
                    self.cuts += 1
                    self.refuse = self.refuse or self._for_good
                    break
        if self._for_good and self.refuse:
            self.drop_all()
        client.close()

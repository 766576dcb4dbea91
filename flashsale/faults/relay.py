"""A relay on the link between two processes, that can do to it what a bad network does.

It runs in a process of its own, so that neither the storm nor what sells shares an interpreter
with it: `python -m flashsale.faults.relay STATE_DIR LINK…`. It says the port of each link on its
standard output, in a line of JSON, obeys lines of JSON on its standard input, and ends with it.
"""

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import orjson
import uvloop

from flashsale.stack.port import LOOPBACK
from flashsale.stack.state import StackState, read_state
from flashsale.store_urls import StoreUrl, read_mysql_url, read_redis_url

_CHUNK = 16_384
_CHUNKS_MAX = 64
"""What is under way on one connection in one direction, at most; then its sender has to wait."""

_SLICE_PAUSE_S = 0.001
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed so is reset

Upstream: TypeAlias = tuple[str, int] | str
"""A host with its port, or the path of a Unix socket."""


@dataclass(frozen=True)
class Trouble:
    """What is done to a link; the words of scenario/fault.py."""

    what: str
    latency_ms: int = 0
    jitter_ms: int = 0
    kb_per_s: int = 0
    slice_bytes: int = 0


class _Pair:
    """One connection through the relay: its two ends."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.half_open = False  # the server's end is gone, and the client does not know
        self.has_lost = False  # bytes of it are gone: it cannot be used any more

    def reset(self) -> None:
        """End both, as a host does that knows nothing of them."""
        for end in (self.client, self.server):
            _reset(end)


def _reset(end: asyncio.StreamWriter) -> None:
    if end.transport.is_closing():
        return
    held = end.get_extra_info("socket")
    with suppress(OSError):
        if held is not None and held.family != socket.AF_UNIX:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    end.transport.abort()


class Link:
    """One link: a port here, a server there, and what troubles it now.

    `find` tells where the server is, anew for each connection: one that was restarted may have
    moved. Bytes pass in order, and none is lost but by a trouble that says so.
    """

    def __init__(self, find: Callable[[], Upstream | None], seed: int = 1) -> None:
        self._find = find
        self._random = random.Random(seed)
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self.troubles: dict[int, Trouble] = {}
        self.port = 0

    def __repr__(self) -> str:
        return f"<Link port={self.port} connections={len(self._pairs)} {self.troubles}>"

    async def open(self) -> None:
        """Listen, on the same port as before where there was one."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def trouble(self, key: int, trouble: Trouble) -> None:
        """Begin with `trouble`, which `heal(key)` ends."""
        self.troubles[key] = trouble
        match trouble.what:
            case "stall":
                self._flows.clear()
            case "reset":
                self._reset_all()
            case "refuse":
                self._stop_listening()
                self._reset_all()
            case "half_open":
                for pair in self._pairs:
                    pair.half_open = True
                    _reset(pair.server)

    async def heal(self, key: int) -> None:
        """End a trouble. Connections that have lost something in it end with it."""
        gone = self.troubles.pop(key, None)
        if not self._has("stall"):
            self._flows.set()
        if gone is not None and gone.what == "refuse" and not self._has("refuse"):
            await self.open()
        for pair in list(self._pairs):
            if pair.has_lost or pair.half_open:
                pair.reset()

    async def aclose(self) -> None:
        """End every connection, and listen no more."""
        self._stop_listening()
        self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _has(self, *what: str) -> bool:
        return any(trouble.what in what for trouble in self.troubles.values())

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, client)
        except asyncio.CancelledError:
            _reset(client)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        upstream = None if self._has("reset") else self._find()
        if upstream is None:
            return _reset(client)
        try:
            if isinstance(upstream, str):
                answers, server = await asyncio.open_unix_connection(upstream)
            else:
                answers, server = await asyncio.open_connection(*upstream)
        except OSError:  # nobody there: the client finds out as it would without a relay
            return _reset(client)
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._carry(pair, reader, server, to_server=True),
                self._carry(pair, answers, client, to_server=False),
            )
        finally:
            self._pairs.discard(pair)
            for end in (client, server):
                end.close()
        return None

    async def _carry(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        to_server: bool,
    ) -> None:
        """Carry bytes one way until their sender ends."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        clock = asyncio.get_running_loop().time

        async def take() -> None:
            with suppress(OSError):
                while data := await reader.read(_CHUNK):
                    await line.put((clock(), data))
            await line.put((clock(), b""))

        taking = asyncio.ensure_future(take())
        try:
            while True:
                came_at, data = await line.get()
                if not data:
                    break
                await self._pass(pair, writer, data, came_at, to_server=to_server)
        except (OSError, RuntimeError):  # the other end has gone
            pass
        finally:
            taking.cancel()
        if pair.half_open and not to_server:
            return  # and nobody tells the client
        with suppress(OSError, RuntimeError):
            if writer.can_write_eof():
                writer.write_eof()

    async def _pass(
        self,
        pair: _Pair,
        writer: asyncio.StreamWriter,
        data: bytes,
        came_at: float,
        *,
        to_server: bool,
    ) -> None:
        await self._flows.wait()
        lost = ("timeout", "lose_requests" if to_server else "lose_replies")
        if pair.half_open or self._has(*lost):
            pair.has_lost = True
            return
        if not to_server and self._has("cut_reply"):
            pair.reset()
            return
        for trouble in list(self.troubles.values()):
            if trouble.what == "latency":
                await self._wait_until(came_at + self._latency_s(trouble))
            elif trouble.what == "bandwidth":
                await asyncio.sleep(len(data) / (trouble.kb_per_s * 1024))
        sizes = [it.slice_bytes for it in self.troubles.values() if it.what == "slice"]
        if not sizes:
            writer.write(data)
        else:
            for start in range(0, len(data), min(sizes)):
                writer.write(data[start : start + min(sizes)])
                await asyncio.sleep(_SLICE_PAUSE_S)
        await writer.drain()

    def _latency_s(self, trouble: Trouble) -> float:
        return (trouble.latency_ms + self._random.uniform(0, trouble.jitter_ms)) / 1000

    async def _wait_until(self, instant: float) -> None:
        await asyncio.sleep(max(0.0, instant - asyncio.get_running_loop().time()))


# Where the servers are ---------------------------------------------------------------------------


def upstream_of(server: str, state: StackState | None) -> Upstream | None:
    """Where a stack's process of this name is; None while that is not known. Pure."""
    if state is None:
        return None
    match server:
        case "ledger" if not read_redis_url(state.ledger_url).sentinels:
            return _place(read_redis_url(state.ledger_url))
        case "cache":
            return _place(read_redis_url(state.cache_url))
        case "mysql":
            return _place(read_mysql_url(state.mysql_url))
        case _:
            ports = {child.name: child.port for child in state.children}
            port = ports.get(server)
            return None if port is None else (LOOPBACK, port)


def _place(url: StoreUrl) -> Upstream:
    return url.socket or (url.host, url.port)


# The process -------------------------------------------------------------------------------------


def message(link: str, key: int, trouble: Trouble | None) -> bytes:
    """One command to the process: begin with `trouble`, or end what began under `key`."""
    told = None if trouble is None else asdict(trouble)
    return orjson.dumps({"link": link, "key": key, "trouble": told}) + b"\n"


async def relay(state_dir: Path, names: Sequence[str]) -> None:
    """Serve the links of these names until the standard input ends."""
    links = {name: Link(_finder(state_dir, name)) for name in names}
    for link in links.values():
        await link.open()
    ports = {name: link.port for name, link in links.items()}
    sys.stdout.buffer.write(orjson.dumps(ports) + b"\n")
    sys.stdout.buffer.flush()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        told = orjson.loads(line)
        link, key = links[told["link"]], told["key"]
        if told["trouble"] is None:
            await link.heal(key)
        else:
            await link.trouble(key, Trouble(**told["trouble"]))
        sys.stdout.buffer.write(b"{}\n")
        sys.stdout.buffer.flush()
    for link in links.values():
        await link.aclose()


def _finder(state_dir: Path, name: str) -> Callable[[], Upstream | None]:
    server = name.partition("->")[2]
    return lambda: upstream_of(server, read_state(state_dir))


if __name__ == "__main__":
    uvloop.run(relay(Path(sys.argv[1]), sys.argv[2:]))

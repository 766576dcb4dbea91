"""Scripts sent to one Redis over a few connections of its own, with every answer accounted for.

redis-py's connection does the talking; its pool and its command layer are left out, since they
cost more than the script (docs/decisions/selling.md, "No pool and no command layer").
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoScriptError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, Word
from flashsale.storage.roles import RECYCLE_S, async_client, is_demoted, trouble


class Lost(Indeterminate):
    """The connection was lost, or the answer took too long: the server may be away."""


_ANSWERS = (BusyLoadingError, AuthenticationError, MasterDownError)


@dataclass(frozen=True, slots=True)
class Plain:
    """One plain command among scripts."""

    words: tuple[Word, ...]

    def command(self) -> tuple[Word, ...]:
        """The words of the command."""
        return self.words


class Channel:
    """At most `connections_max` conversations with one Redis; a caller waits for a free one.

    Replies are text, or bytes where `text` is False: then no reply can fail to be decoded.
    """

    def __init__(
        self, url: str, *, connections_max: int, timeout_s: float, text: bool = True
    ) -> None:
        self._pool = async_client(url, connections_max=connections_max).connection_pool
        self._pool.connection_kwargs["decode_responses"] = text
        self._pool.connection_kwargs["socket_timeout"] = None  # one timeout, around the whole call
        self._idle: deque[AbstractConnection] = deque()
        self._until_s: dict[AbstractConnection, float] = {}  # when a connection has had its time
        self._free = asyncio.Semaphore(connections_max)
        self._timeout_s = timeout_s
        self.connections_max = connections_max
        self.in_use = 0
        self.lost = 0  # calls without an answer
        self.unreachable = 0  # calls without a connection

    def __repr__(self) -> str:
        return f"<Channel {self._pool!r} idle={len(self._idle)}>"

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return len(self._idle)

    async def run(self, calls: Sequence[Call | Plain]) -> list[Any]:
        """The replies to `calls`, sent in one write and executed in order.

        Each reply is the script's, or an Unavailable or Indeterminate *value* for that call
        alone. Raises Unavailable if nothing was sent. NOSCRIPT is cured here by loading the
        script and sending that call again, since it certainly was not executed.
        """
        async with self._free:
            connection = await self._connected()
            try:
                replies = await self._exchange(connection, [call.command() for call in calls])
                for i, reply in enumerate(replies):
                    call = calls[i]
                    if isinstance(reply, NoScriptError) and isinstance(call, Call):
                        replies[i] = await self._load_and_run(connection, call)
            finally:
                self._give_back(connection)
        return [trouble(r) if isinstance(r, RedisError) else r for r in replies]

    async def evaluate(self, call: Call) -> Any:
        """The reply to one script. Raises Unavailable or Indeterminate."""
        reply = (await self.run([call]))[0]
        if isinstance(reply, (Unavailable, Indeterminate)):
            raise reply
        return reply

    async def ask(self, *command: Word) -> Any:
        """The reply to one plain command. Raises Unavailable or Indeterminate."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The replies to plain commands sent in one write. Raises Unavailable or Indeterminate."""
        async with self._free:
            connection = await self._connected()
            try:
                replies = await self._exchange(connection, commands)
            finally:
                self._give_back(connection)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise trouble(reply)
            if isinstance(reply, Indeterminate):
                raise reply
        return replies

    async def aclose(self) -> None:
        """Close every idle connection."""
        while self._idle:  # nothing is under way on them
            await self._idle.pop().disconnect(nowait=True)
        await asyncio.sleep(0)  # the loop closes a transport in its next turn

    async def _connected(self) -> AbstractConnection:
        connection = self._idle.pop() if self._idle else self._new_connection()
        now_s = monotonic()
        try:
            if connection.is_connected and (
                now_s > self._until_s[connection] or await connection.can_read()
            ):
                # Too old, closed by the server, or with bytes that nobody asked for.
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                self._until_s[connection] = now_s + RECYCLE_S
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            self.unreachable += 1
            raise Unavailable(f"Redis cannot be reached: {error}") from error
        self.in_use += 1
        return connection

    def _give_back(self, connection: AbstractConnection) -> None:
        self.in_use -= 1
        self._idle.append(connection)

    def _new_connection(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _exchange(
        self, connection: AbstractConnection, commands: Sequence[Sequence[Word]]
    ) -> list[Any]:
        if not commands:  # asyncio's own loop keeps an empty write for ever, from Python 3.12 on
            return []
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.send_packed_command(
                    b"".join(pack_command(tuple(words)) for words in commands),  # type: ignore[arg-type]  # its stub takes one word
                    check_health=False,
                )
                while len(replies) < len(commands):  # one by one: those read before a loss count
                    replies += [await self._reply(connection)]
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            self.lost += 1
            lost = Lost(f"Redis did not answer: {error or type(error).__name__}")
            replies += [lost] * (len(commands) - len(replies))
        except BaseException:
            await connection.disconnect(nowait=True)  # cancelled halfway: replies would be stale
            raise
        return replies

    async def _reply(self, connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response(disconnect_on_error=False)
        except _ANSWERS as error:  # redis-py files them under lost connections; they are not
            self._look_at(error)
            return error
        except (RedisConnectionError, RedisTimeoutError):
            raise
        except RedisError as error:
            self._look_at(error)
            return error

    def _look_at(self, error: RedisError) -> None:
        """Let no connection be used again that leads to a server that was demoted."""
        if is_demoted(error):
            self._until_s = dict.fromkeys(self._until_s, 0.0)

    async def _load_and_run(self, connection: AbstractConnection, call: Call) -> Any:
        loaded = (await self._exchange(connection, [("SCRIPT", "LOAD", call.script.text)]))[0]
        if isinstance(loaded, (RedisError, Unavailable, Indeterminate)):
            return Unavailable(f"the script {call.script.name} could not be loaded: {loaded}")
        return (await self._exchange(connection, [call.command()]))[0]

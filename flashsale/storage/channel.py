"""Scripts sent to one Redis over a few connections of its own, with every answer accounted for.

redis-py connects and signs in, then the transport is a `_Wire`'s: a call is one write, in the turn
of the loop that makes it, and has its replies in the turn that reads them. redis-py's streams, pool
and command layer are left out: they cost more than the script (docs/decisions/selling.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple, cast

from hiredis import Reader, pack_command
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection, Connection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoScriptError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from flashsale.errors import Indeterminate, Unavailable
from flashsale.keys import SINGLE, WHOLE, Lane
from flashsale.lua.scripts import Call, Word
from flashsale.primaries import topology
from flashsale.storage.roles import RECYCLE_S, Confirmation, async_client, is_demoted, trouble
from flashsale.store_urls import of_node


class Lost(Indeterminate):
    """The connection was lost, or the answer took too long: the server may be away."""


_ANSWERS = (BusyLoadingError, AuthenticationError, MasterDownError)
"""redis-py files them under lost connections; they are not."""

_NOTHING_YET = object()


class Plain(NamedTuple):
    """One plain command among scripts."""

    words: tuple[Word, ...]

    def command(self) -> tuple[Word, ...]:
        """The words of the command."""
        return self.words


@dataclass(frozen=True, slots=True)
class Opening:
    """What a connection asks before anything else is sent over it; `check` is given the replies,
    trouble as values among them, and raises Unavailable where nothing may be sent."""

    commands: Sequence[Sequence[Word]]
    check: Callable[[Sequence[Any]], None]


class _Wire(asyncio.Protocol):
    """One connection until its end: commands out, their replies in, for one caller at a time.

    `on_demoted` is told when a reply says that the server is not the one to be spoken to, `on_lost`
    when a call has not all its replies.
    """

    why = ""  # the last call has not all its replies
    erred = False  # one of its replies is an error

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        text: bool,
        on_demoted: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._writer = writer  # kept: it would close the transport
        self._transport = cast(asyncio.Transport, writer.transport)
        self._on_demoted, self._on_lost = on_demoted, on_lost
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_NOTHING_YET,
            **({"encoding": "utf-8"} if text else {}),
        )
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._wanted = 0
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.opened_s = monotonic()

    def __repr__(self) -> str:
        return f"<_Wire open={self.is_open} wanted={self._wanted}>"

    @property
    def is_open(self) -> bool:
        """Whether the server can be spoken to, as far as anybody knows."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close at once; a call that waits has the replies that are there."""
        self._transport.abort()
        self._answer()

    def exchange(self, data: bytes, count: int, due_s: float) -> asyncio.Future[list[Any]]:
        """Send `count` commands; the future brings their replies, by `due_s` of the loop's clock.

        It has to be open. Errors are replies. Lost stands for those that are missing, since the
        connection was lost or the time was up; it is closed then.
        """
        future = self._waiting = self._loop.create_future()
        self._replies, self._wanted, self.why, self.erred = [], count, "", False
        self._transport.write(data)
        self._due_s = due_s
        if self._timer is None:  # one for many calls: to make one costs as much as a small call
            self._timer = self._loop.call_at(due_s, self._look_at_clock)
        return future

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.close()  # bytes that nobody asked for: what follows would be taken for a reply
            return
        reader, replies = self._reader, self._replies
        try:
            reader.feed(data)
            while len(replies) < self._wanted:
                reply = reader.gets()
                if reply is _NOTHING_YET:
                    return
                if isinstance(reply, RedisError):
                    self.erred = True
                    self._look_at_error(reply)
                replies.append(reply)
            unasked = reader.has_data()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to know
            self._fail(error)
            return
        self._answer()
        if unasked:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.why = str(exc or "") or "the server closed the connection"
        self.close()

    def _look_at_error(self, error: RedisError) -> None:
        if is_demoted(error):
            self._on_demoted()
        if isinstance(error, RedisConnectionError) and not isinstance(error, _ANSWERS):
            raise error

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._due_s:
            self._timer = self._loop.call_at(self._due_s, self._look_at_clock)
        else:
            self.why = "the time for it was up"
            self.close()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():  # its caller may have gone
            return
        missing = self._wanted - len(self._replies)
        if missing:
            self._on_lost()
            self._replies += [Lost(f"Redis did not answer: {self.why}")] * missing
        waiting.set_result(self._replies)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, RedisError):
            self.why = str(error)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
        self.close()


class Channel:
    """At most `connections_max` conversations with one Redis; a caller waits for a free one.

    Every call ends within `timeout_s`: to wait, to connect, to be answered, all together.

    Replies are text, or bytes where `text` is False: then no reply can fail to be decoded.

    Of a ledger on a cluster it is with the master of one `lane`, which has to be named.
    With a `confirmation` every `run` asks the replicas in the same write. What they do not confirm
    is Indeterminate, whatever was replied, and every connection ends: a new one is used once they
    answer for it, so that while they are away nothing is sent.
    """

    layout = SINGLE

    def __init__(
        self,
        url: str,
        *,
        connections_max: int,
        timeout_s: float,
        text: bool = True,
        opening: Opening | None = None,
        lane: Lane = WHOLE,
        confirmation: Confirmation | None = None,
    ) -> None:
        self._masters = None if lane is WHOLE else topology(url)
        self._lane = lane
        node = url if lane is WHOLE else of_node(url)
        self._pool = async_client(node, connections_max=connections_max).connection_pool
        self._pool.connection_kwargs["decode_responses"] = text
        self._pool.connection_kwargs["socket_timeout"] = None  # one timeout, around the whole call
        self._idle: deque[_Wire] = deque()
        self._demoted_s = 0.0  # what was opened until then leads to a server that was demoted
        self._free = connections_max  # conversations that may begin
        self._queue: deque[asyncio.Future[None]] = deque()  # who waits for one of them
        self._timeout_s = timeout_s
        self._text = text
        self._opening = opening
        self._confirmation = confirmation and confirmation.on(lane)
        self.connections_max = connections_max
        self.lost = 0  # calls without an answer
        self.unreachable = 0  # calls without a connection
        self.unconfirmed = 0  # calls of which too few replicas told that they have them

    def __repr__(self) -> str:
        return f"<Channel {self._pool!r} idle={len(self._idle)}>"

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Conversations that are under way, or whose connection is being opened."""
        return self.connections_max - self._free

    async def run(self, calls: Sequence[Call | Plain]) -> list[Any]:
        """The replies to `calls`, sent in one write and executed in order.

        Each reply is the script's, or an Unavailable or Indeterminate *value* for that call
        alone. Raises Unavailable if nothing was sent. NOSCRIPT is cured here by loading the
        script and sending that call again, since it certainly was not executed.
        """
        due_s = asyncio.get_running_loop().time() + self._timeout_s
        wire = self._at_hand() or await self._taken(due_s)
        confirming = self._confirmation
        commands = [call.command() for call in calls]
        if confirming is not None:
            commands += confirming.commands
        try:
            replies = await self._sent(wire, commands, due_s)
            has_erred = wire.erred
            if has_erred:
                await self._load_missing(wire, calls, replies, due_s)
        except BaseException:
            wire.close()  # cancelled halfway: replies would be stale
            raise
        finally:
            self._give_back(wire)
        if has_erred:
            if self._masters is not None:
                await self._follow(calls, replies, due_s)
            replies = [trouble(r) if isinstance(r, RedisError) else r for r in replies]
        return replies if confirming is None else self._confirmed(confirming, replies)

    def _confirmed(self, confirming: Confirmation, replies: list[Any]) -> list[Any]:
        """The replies but the last, which are of the replicas; what is certain stays so."""
        replies, last = replies[:-2], replies[-2:]
        if confirming.holds(last):
            return replies
        self.unconfirmed += 1
        self.leave()
        doubt = Indeterminate(f"Redis: {confirming.told(last)}")
        return [
            reply if isinstance(reply, (Unavailable, Indeterminate)) else doubt for reply in replies
        ]

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
        due_s = asyncio.get_running_loop().time() + self._timeout_s
        wire = self._at_hand() or await self._taken(due_s)
        try:
            replies = await self._exchange(wire, commands, due_s)
        finally:
            self._give_back(wire)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise trouble(reply)
            if isinstance(reply, (Unavailable, Indeterminate)):
                raise reply
        return replies

    def leave(self) -> None:
        """Use none of the connections again that are there now: they lead to a server that is not,
        or may not be, the one to be spoken to."""
        self._demoted_s = monotonic()
        if self._masters is not None:
            self._masters.doubt()

    async def aclose(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().close()  # nothing is under way on it
        await asyncio.sleep(0)  # the loop closes a transport in its next turn

    def _at_hand(self) -> _Wire | None:
        """An idle connection, if there is one and nobody waits: the common case, without a task's
        steps."""
        if not self._free or not (wire := self._usable()):
            return None
        self._free -= 1
        return wire

    async def _taken(self, due_s: float) -> _Wire:
        """A connection that nobody else uses, in order of arrival. Raises Unavailable."""
        if self._free:
            self._free -= 1
        else:
            await self._turn(due_s)
        try:
            return self._usable() or await self._opened(due_s)
        except BaseException:
            self._release()
            raise

    async def _turn(self, due_s: float) -> None:
        """Wait until a conversation has ended, whose place it takes. Raises Unavailable."""
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout_at(due_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._release()
            if isinstance(error, TimeoutError):
                self.unreachable += 1
                told = "Redis was not asked: no connection came free in time"
                raise Unavailable(told) from None
            raise

    def _release(self) -> None:
        """A conversation has ended: its place is the next one's who waits."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # else it has gone
                turn.set_result(None)
                return
        self._free += 1

    def _usable(self) -> _Wire | None:
        """One that is idle; those that have had their time, or their end, are left behind."""
        while self._idle:
            wire = self._idle.pop()
            if wire.is_open and wire.opened_s > max(self._demoted_s, monotonic() - RECYCLE_S):
                return wire
            wire.close()
        return None

    async def _opened(self, due_s: float) -> _Wire:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout_at(due_s):
                await self._lead(connection)
                await connection.connect()  # type: ignore[no-untyped-call]
            if await connection.can_read():
                raise RedisConnectionError("the server spoke before it was asked")
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            self.unreachable += 1
            if self._masters is not None:
                self._masters.doubt()
            raise Unavailable(f"Redis cannot be reached: {error}") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer, connection._reader, connection._writer = connection._writer, None, None
        assert writer is not None
        wire = _Wire(writer, self._text, self.leave, self._has_lost)
        writer.transport.set_protocol(wire)
        try:
            if self._opening is not None:
                opened = await self._exchange(wire, self._opening.commands, due_s)
                if self._masters is not None:
                    _check_led(opened)
                self._opening.check(opened)
            if self._confirmation is not None:
                asked = self._confirmation
                replies = await self._exchange(wire, asked.commands, due_s)
                if not asked.holds(replies):
                    self.unreachable += 1
                    raise Unavailable(f"Redis was not asked: {asked.told(replies)}")
        except Unavailable:
            wire.close()
            raise
        return wire

    def _give_back(self, wire: _Wire) -> None:
        self._idle.append(wire)
        if self._queue:
            self._release()
        else:
            self._free += 1

    def _has_lost(self) -> None:
        self.lost += 1
        if self._masters is not None:
            self._masters.doubt()

    async def _follow(
        self, calls: Sequence[Call | Plain], replies: list[Any], due_s: float
    ) -> None:
        """Send again, to where the lane is now, what the server said has moved: it did nothing.

        While a slot is on its way (ASK, TRYAGAIN) nothing is sent anywhere else: part of the lane
        may be at either end, and a script needs all of it. That is shed until it has settled.
        """
        moved = [i for i, _ in enumerate(calls) if isinstance(replies[i], MovedError)]
        if not moved:
            return
        try:
            wire = await self._taken(due_s)
        except Unavailable as trouble:
            for i in moved:
                replies[i] = trouble
            return
        try:
            again = await self._exchange(wire, [calls[i].command() for i in moved], due_s)
            for i, reply in zip(moved, again, strict=True):
                call = calls[i]
                if isinstance(reply, NoScriptError) and isinstance(call, Call):
                    reply = await self._load_and_run(wire, call, due_s)
                replies[i] = reply
            if self._confirmation is not None:
                replies[-2:] = await self._exchange(wire, self._confirmation.commands, due_s)
        finally:
            self._give_back(wire)

    async def _lead(self, connection: AbstractConnection) -> None:
        """Name the place that a connection is to be opened to, of a lane."""
        if self._masters is not None and isinstance(connection, Connection):
            place = self._masters.known(self._lane)
            if place is None:
                place = await asyncio.to_thread(self._masters.place, self._lane)
            connection.host, connection.port = place

    async def _exchange(
        self, wire: _Wire, commands: Sequence[Sequence[Word]], due_s: float
    ) -> list[Any]:
        try:
            return await self._sent(wire, [tuple(words) for words in commands], due_s)
        except BaseException:
            wire.close()  # cancelled halfway: replies would be stale
            raise

    def _sent(
        self, wire: _Wire, commands: Sequence[tuple[Word, ...]], due_s: float
    ) -> asyncio.Future[list[Any]]:
        """What brings the replies; who is cancelled while it waits has to close the connection."""
        told: list[Any] = []
        if commands:  # asyncio's own loop keeps an empty write for ever, from Python 3.12 on
            if wire.is_open:
                data = b"".join(map(pack_command, commands))  # type: ignore[arg-type]  # its stub takes one word
                return wire.exchange(data, len(commands), due_s)
            # It was lost since it was opened, or by the call before this one.
            self.unreachable += 1
            told = [Unavailable("Redis was not asked: the connection was closed")] * len(commands)
        unsent: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        unsent.set_result(told)
        return unsent

    async def _load_missing(
        self, wire: _Wire, calls: Sequence[Call | Plain], replies: list[Any], due_s: float
    ) -> None:
        """Load the scripts that the server does not know, and run those calls: they did nothing."""
        for i, call in enumerate(calls):
            if isinstance(replies[i], NoScriptError) and isinstance(call, Call):
                replies[i] = await self._load_and_run(wire, call, due_s)
                if self._confirmation is not None:  # it was asked too early
                    asked = self._confirmation.commands
                    replies[-2:] = await self._exchange(wire, asked, due_s)

    async def _load_and_run(self, wire: _Wire, call: Call, due_s: float) -> Any:
        loaded = (await self._exchange(wire, [("SCRIPT", "LOAD", call.script.text)], due_s))[0]
        if isinstance(loaded, (RedisError, Unavailable, Indeterminate)):
            return Unavailable(f"the script {call.script.name} could not be loaded: {loaded}")
        return (await self._exchange(wire, [call.command()], due_s))[0]


def _check_led(replies: Sequence[Any]) -> None:
    """Raises Unavailable where a lane's connection was led to a server that has it no more: that
    says nothing of the lane itself."""
    for reply in replies:
        if isinstance(reply, RedisError):
            raise trouble(reply)

"""Scripts sent to one Redis over a few connections of its own, with every answer accounted for.

redis-py connects and signs in, then the transport is ours: a call is one write, in the turn
of the loop that makes it, and has its replies in the turn that reads them. redis-py's streams, pool
and command layer are left out: they cost more than the script (docs/decisions/selling.md).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Protocol, cast

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
from flashsale.primaries import Place, topology
from flashsale.storage.roles import RECYCLE_S, Confirmation, async_client, is_demoted, trouble
from flashsale.store_urls import of_node


class Lost(Indeterminate):
    """The connection was lost, or the answer took too long: the server may be away."""


_ANSWERS = (BusyLoadingError, AuthenticationError, MasterDownError)
"""redis-py files them under lost connections; they are not."""

_NOTHING_YET = object()


@dataclass(frozen=True, slots=True)
class Plain:
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


class Wire(Protocol):
    """One connection, or one channel's part of it, until its end: commands out, replies in."""

    @property
    def is_open(self) -> bool:
        """Whether the server can be spoken to, as far as anybody knows."""

    @property
    def opened_s(self) -> float:
        """When it was opened, on the monotonic clock."""

    @property
    def why(self) -> str:
        """Why replies are missing."""

    def close(self) -> None:
        """Use it no more."""

    def exchange(
        self, data: bytes, count: int, due_s: float, on_demoted: Callable[[], None]
    ) -> asyncio.Future[list[Any]]:
        """Send `count` commands; the future brings their replies, by `due_s` of the loop's clock.

        It has to be open. Errors are replies; `on_demoted` is told of one that says that the server
        is not the one to be spoken to. There are fewer where the connection was lost or the time
        was up, and `why` says what of it.
        """


@dataclass(slots=True)
class _Exchange:
    """One call over a connection: the replies that have come, and who waits for all of them."""

    wanted: int
    due_s: float
    on_demoted: Callable[[], None]
    future: asyncio.Future[list[Any]]
    replies: list[Any] = field(default_factory=list)

    def answer(self) -> None:
        """Hand over what is there."""
        if not self.future.done():  # its caller may have gone
            self.future.set_result(self.replies)


class Connected(asyncio.Protocol):
    """A connection to one server: calls out, and in the same order all their replies in."""

    why = ""

    def __init__(self, writer: asyncio.StreamWriter, text: bool) -> None:
        self._writer = writer  # kept: it would close the transport
        self._transport = cast(asyncio.Transport, writer.transport)
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_NOTHING_YET,
            **({"encoding": "utf-8"} if text else {}),
        )
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.opened_s = monotonic()

    def __repr__(self) -> str:
        return f"<Connected open={self.is_open} calls={len(self._calls)}>"

    @property
    def is_open(self) -> bool:
        """Whether the server can be spoken to, as far as anybody knows."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close at once; calls that wait have the replies that are there."""
        self._transport.abort()
        while self._calls:
            self._calls.popleft().answer()

    def exchange(
        self, data: bytes, count: int, due_s: float, on_demoted: Callable[[], None]
    ) -> asyncio.Future[list[Any]]:
        """As `Wire` has it."""
        call = self.expect(count, due_s, on_demoted)
        self.write(data)
        return call

    def write(self, data: bytes) -> None:
        """Send commands whose replies are expected."""
        self._transport.write(data)

    def expect(
        self, count: int, due_s: float, on_demoted: Callable[[], None]
    ) -> asyncio.Future[list[Any]]:
        """As `exchange`, of commands that are written in the same order."""
        call = _Exchange(count, due_s, on_demoted, self._loop.create_future())
        self._calls.append(call)
        # One timer for many calls: to make one costs as much as a small call.
        if self._timer is None or due_s < self._timer_s:
            self._set_clock(due_s)
        return call.future

    def data_received(self, data: bytes) -> None:
        reader, calls = self._reader, self._calls
        try:
            reader.feed(data)
            while calls:
                call = calls[0]
                replies, wanted = call.replies, call.wanted
                while len(replies) < wanted:
                    reply = reader.gets()
                    if reply is _NOTHING_YET:
                        return
                    if isinstance(reply, RedisError):
                        _look_at_error(reply, call)
                    replies.append(reply)
                calls.popleft().answer()
            unasked = reader.has_data()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to know
            self._fail(error)
            return
        if unasked:
            self.close()  # bytes that nobody asked for: what follows would be taken for a reply

    def connection_lost(self, exc: Exception | None) -> None:
        self.why = str(exc or "") or "the server closed the connection"
        self.close()

    def _set_clock(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = self._loop.call_at(due_s, self._look_at_clock), due_s

    def _look_at_clock(self) -> None:
        """Close where the time of any call is up: the server has not answered what it has."""
        self._timer = None
        if not self._calls:
            return
        due_s = min(call.due_s for call in self._calls)
        if self._loop.time() < due_s:
            self._set_clock(due_s)
        else:
            self.why = "the time for it was up"
            self.close()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, RedisError):
            self.why = str(error)
        elif self._calls and not self._calls[0].future.done():
            self._calls.popleft().future.set_exception(error)
        self.close()


def _look_at_error(error: RedisError, call: _Exchange) -> None:
    """Raises what ends the connection."""
    if is_demoted(error):
        call.on_demoted()
    if isinstance(error, RedisConnectionError) and not isinstance(error, _ANSWERS):
        raise error


class Wires(Protocol):
    """Connections that several channels share."""

    async def to(
        self, place: Place, connect: Callable[[], Awaitable[Connected]], since_s: float
    ) -> Wire:
        """A part of the one to `place`, which is opened where there is none younger than that."""


class Channel:
    """At most `connections_max` conversations with one Redis; a caller waits for a free one.

    Every call ends within `timeout_s`: to wait, to connect, to be answered, all together.

    Replies are text, or bytes where `text` is False: then no reply can fail to be decoded.

    Of a ledger on a cluster it is with the master of one `lane`, which has to be named, over a part
    of one of `wires`, if those are given.
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
        wires: Wires | None = None,
    ) -> None:
        self._masters = None if lane is WHOLE else topology(url)
        self._lane = lane
        node = url if lane is WHOLE else of_node(url)
        self._pool = async_client(node, connections_max=connections_max).connection_pool
        self._pool.connection_kwargs["decode_responses"] = text
        self._pool.connection_kwargs["socket_timeout"] = None  # one timeout, around the whole call
        # A replica's confirmation holds up whatever comes after it on its connection.
        self._wires = wires if self._masters is not None and confirmation is None else None
        self._idle: deque[Wire] = deque()
        self._demoted_s = 0.0  # what was opened until then leads to a server that was demoted
        self._free = asyncio.Semaphore(connections_max)
        self._timeout_s = timeout_s
        self._text = text
        self._opening = opening
        self._confirmation = confirmation and confirmation.on(lane)
        self.connections_max = connections_max
        self.in_use = 0
        self.lost = 0  # calls without an answer
        self.unreachable = 0  # calls without a connection
        self.unconfirmed = 0  # calls of which too few replicas told that they have them

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
        due_s = asyncio.get_running_loop().time() + self._timeout_s
        wire = await self._taken(due_s)
        commands: list[Sequence[Word]] = [call.command() for call in calls]
        confirming = self._confirmation
        if confirming is not None:
            commands += confirming.commands
        try:
            replies = await self._exchange(wire, commands, due_s)
            for i, call in enumerate(calls):
                if isinstance(replies[i], NoScriptError) and isinstance(call, Call):
                    replies[i] = await self._load_and_run(wire, call, due_s)
                    if confirming is not None:  # it was asked too early
                        replies[-2:] = await self._exchange(wire, confirming.commands, due_s)
        finally:
            self._give_back(wire)
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
        wire = await self._taken(due_s)
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

    async def _taken(self, due_s: float) -> Wire:
        """A connection that nobody else uses. Raises Unavailable."""
        if self._free.locked():
            try:
                async with asyncio.timeout_at(due_s):
                    await self._free.acquire()
            except TimeoutError:
                self.unreachable += 1
                raise Unavailable("Redis was not asked: no connection came free in time") from None
        else:
            await self._free.acquire()
        try:
            wire = self._usable() or await self._opened(due_s)
        except BaseException:
            self._free.release()
            raise
        self.in_use += 1
        return wire

    @property
    def _since_s(self) -> float:
        """What was opened until then is used no more."""
        return max(self._demoted_s, monotonic() - RECYCLE_S)

    def _usable(self) -> Wire | None:
        """One that is idle; those that have had their time, or their end, are left behind."""
        while self._idle:
            wire = self._idle.pop()
            if wire.is_open and wire.opened_s > self._since_s:
                return wire
            wire.close()
        return None

    async def _opened(self, due_s: float) -> Wire:
        try:
            async with asyncio.timeout_at(due_s):
                wire = await self._led()
        except (RedisError, OSError, TimeoutError) as error:
            self.unreachable += 1
            if self._masters is not None:
                self._masters.doubt()
            raise Unavailable(f"Redis cannot be reached: {error}") from error
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

    def _give_back(self, wire: Wire) -> None:
        self.in_use -= 1
        self._idle.append(wire)
        self._free.release()

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

    async def _led(self) -> Wire:
        """A connection to the server, of a lane to its master."""
        if self._masters is None:
            return await self._connected()
        place = self._masters.known(self._lane)
        if place is None:
            place = await asyncio.to_thread(self._masters.place, self._lane)
        connect = partial(self._connected, place)
        if self._wires is None:
            return await connect()
        return await self._wires.to(place, connect, self._since_s)

    async def _connected(self, place: Place | None = None) -> Connected:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        if place is not None and isinstance(connection, Connection):
            connection.host, connection.port = place
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            if await connection.can_read():
                raise RedisConnectionError("the server spoke before it was asked")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer, connection._reader, connection._writer = connection._writer, None, None
        assert writer is not None
        wire = Connected(writer, self._text)
        writer.transport.set_protocol(wire)
        return wire

    async def _exchange(
        self, wire: Wire, commands: Sequence[Sequence[Word]], due_s: float
    ) -> list[Any]:
        if not commands:  # asyncio's own loop keeps an empty write for ever, from Python 3.12 on
            return []
        if not wire.is_open:  # it was lost since it was opened, or by the call before this one
            self.unreachable += 1
            return [Unavailable("Redis was not asked: the connection was closed")] * len(commands)
        data = b"".join(pack_command(tuple(words)) for words in commands)  # type: ignore[arg-type]  # its stub takes one word
        try:
            replies = await wire.exchange(data, len(commands), due_s, self.leave)
        except BaseException:
            wire.close()  # cancelled halfway: replies would be stale
            raise
        missing = len(commands) - len(replies)
        if missing:
            self.lost += 1
            if self._masters is not None:
                self._masters.doubt()
            replies += [Lost(f"Redis did not answer: {wire.why}")] * missing
        return replies

    async def _load_and_run(self, wire: Wire, call: Call, due_s: float) -> Any:
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

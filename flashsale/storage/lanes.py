"""The ledger's asynchronous channels by lane. Calls that come one by one (sign-ins, look-ups,
returns) find their lane by their keys. Claims and sessions come in batches, each of one lane: they
have channels of their own (seckill/claims.py), which leave in rounds and over shared connections:
one write to each master where each lane would have its own."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from flashsale.errors import Unavailable
from flashsale.keys import SINGLE, Lane
from flashsale.lua.scripts import Call, Word
from flashsale.primaries import Place
from flashsale.storage.channel import Channel, Connected, Wire
from flashsale.storage.gate import Rounds
from flashsale.store_urls import layout_of


class SharedWires:
    """One connection to each master, which channels of one event loop share.

    What they send in one turn of the loop is one write in the next, and the server answers all of
    it with one. None of them may send what blocks.
    """

    def __init__(self) -> None:
        self._by_place: dict[Place, _Shared] = {}
        self._opening: dict[Place, asyncio.Lock] = {}

    def __repr__(self) -> str:
        return f"<SharedWires {self._by_place!r}>"

    async def to(
        self, place: Place, connect: Callable[[], Awaitable[Connected]], since_s: float
    ) -> Wire:
        """A part of the connection to `place`; a new one where that is closed or as old as
        `since_s`. Raises what `connect` raises."""
        async with self._opening.setdefault(place, asyncio.Lock()):
            shared = self._by_place.get(place)
            if shared is None or not shared.wire.is_open or shared.wire.opened_s <= since_s:
                shared = self._by_place[place] = _Shared(await connect())
            return _Part(shared)


class _Shared:
    """A connection, and how many use it: the last one closes it."""

    def __init__(self, wire: Connected) -> None:
        self.wire = wire
        self.users = 0
        self._unsent: list[bytes] = []

    def __repr__(self) -> str:
        return f"<_Shared users={self.users} {self.wire!r}>"

    def write_soon(self, data: bytes) -> None:
        """Write it in the loop's next turn, with what comes until then."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        self._unsent.append(data)

    def _write(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self.wire.is_open:  # else nobody waits for it any more
            self.wire.write(data)


class _Part:
    """One channel's part of a connection. Who goes in the middle of a call leaves its replies to
    the connection, which knows whose they are."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._is_closed = False
        self._wire = shared.wire
        shared.users += 1

    def __repr__(self) -> str:
        return f"<_Part closed={self._is_closed} of {self._shared!r}>"

    def exchange(
        self, data: bytes, count: int, due_s: float, on_demoted: Callable[[], None]
    ) -> asyncio.Future[list[Any]]:
        """As `Wire` has it."""
        replies = self._wire.expect(count, due_s, on_demoted)
        self._shared.write_soon(data)
        return replies

    @property
    def is_open(self) -> bool:
        """As `Wire` has it."""
        return not self._is_closed and self._wire.is_open

    @property
    def opened_s(self) -> float:
        """Of the whole connection."""
        return self._wire.opened_s

    @property
    def why(self) -> str:
        """As `Wire` has it."""
        return self._wire.why

    def close(self) -> None:
        """Use it no more."""
        if not self._is_closed:
            self._is_closed = True
            self._shared.users -= 1
            if not self._shared.users:
                self._wire.close()


class Together(NamedTuple):
    """What the gates of all lanes have in common: when they call, and over which connections."""

    rounds: Rounds
    wires: SharedWires


class LaneChannels:
    """A channel for each lane of a cluster's ledger, which asks as one channel does."""

    def __init__(self, url: str, *, connections_max: int, timeout_s: float) -> None:
        self.layout = layout_of(url)
        self._channels = tuple(
            Channel(url, connections_max=connections_max, timeout_s=timeout_s, lane=lane)
            for lane in self.layout.lanes
        )

    def __repr__(self) -> str:
        return f"<LaneChannels {self._channels!r}>"

    @property
    def by_name(self) -> Mapping[str, Channel]:
        """Its channels, each by its lane."""
        return {lane.tag: self.of(lane) for lane in self.layout.lanes}

    def of(self, lane: Lane) -> Channel:
        """The channel of a lane."""
        return self._channels[lane.number]

    async def evaluate(self, call: Call) -> Any:
        """The reply to one script. Raises Unavailable or Indeterminate."""
        return await self._by(call.keys).evaluate(call)

    async def ask(self, *command: Word) -> Any:
        """The reply to one plain command. Raises Unavailable or Indeterminate."""
        return await self._by(command).ask(*command)

    async def ask_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The replies to plain commands; those of one lane leave in one write, and where all are of
        one lane, MULTI and EXEC may be among them. Raises Unavailable or Indeterminate."""
        lanes = [self._lane(words) for words in commands]
        named = {lane.number for lane in lanes if lane is not None}
        if not named:
            raise Unavailable("no lane of the ledger is named")
        if len(named) == 1:
            return await self._channels[named.pop()].ask_all(commands)
        replies: list[Any] = [None] * len(commands)

        async def ask(number: int) -> None:
            mine = [i for i, lane in enumerate(lanes) if lane is not None and lane.number == number]
            found = await self._channels[number].ask_all([commands[i] for i in mine])
            for i, reply in zip(mine, found, strict=True):
                replies[i] = reply

        await asyncio.gather(*map(ask, sorted(named)))
        return replies

    async def aclose(self) -> None:
        """Close every idle connection."""
        for channel in self._channels:
            await channel.aclose()

    def _by(self, words: Sequence[Word]) -> Channel:
        lane = self._lane(words)
        if lane is None:
            raise Unavailable("no lane of the ledger is named")
        return self.of(lane)

    def _lane(self, words: Sequence[Word]) -> Lane | None:
        """The lane of the first key among `words`."""
        return next(
            (
                lane
                for word in words
                if isinstance(word, str) and (lane := self.layout.of_key(word))
            ),
            None,
        )


LedgerChannel: TypeAlias = Channel | LaneChannels


def ledger_channel(url: str, *, connections_max: int, timeout_s: float) -> LedgerChannel:
    """What asks the ledger at `url`, whichever its layout; `connections_max` is of each lane."""
    if layout_of(url) is SINGLE:
        return Channel(url, connections_max=connections_max, timeout_s=timeout_s)
    return LaneChannels(url, connections_max=connections_max, timeout_s=timeout_s)


def channels_of(name: str, ledger: LedgerChannel) -> Mapping[str, Channel]:
    """Its channels by name, for whoever counts them."""
    if isinstance(ledger, Channel):
        return {name: ledger}
    return {f"{name}_{tag}": channel for tag, channel in ledger.by_name.items()}

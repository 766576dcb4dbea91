"""The ledger's asynchronous channels by lane, for calls that come one by one: sign-ins, look-ups,
returns. A key tells its lane, so a call finds its way by its keys. Claims and sessions come in
batches, each of one lane: they have channels of their own (seckill/claims.py)."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from flashsale.errors import Unavailable
from flashsale.keys import SINGLE, Lane
from flashsale.lua.scripts import Call, Word
from flashsale.storage.channel import Channel
from flashsale.store_urls import layout_of


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

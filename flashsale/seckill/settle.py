"""Settling a batch whose answer was lost: replay it until the truth is known or cannot be.

The replay is the very same call: same order ids, same deadline. Receipts make it safe (a user
who holds one is told so before anything else is looked at), and they tell the truth:

1. a receipt with my id: the lost call sold it. Sold.
2. a receipt with another id: the user held one already. Duplicate.
3. past the deadline: neither the lost call nor this one can sell any more. Certainly not done.
4. any other refusal (sold out, paused, …) before the deadline is not final, because the lost
   call may still arrive and find the sale changed: ask again once the deadline has passed.
5. the session has gone: whose receipt to look for is not known any more. Unknown.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import Outcome
from flashsale.seckill.batch import SHED, Answer, Batch, read_answers
from flashsale.seckill.clock import LedgerClock
from flashsale.storage.channel import Channel

REPLAYS_MAX = 3
_AFTER_DEADLINE_S = 0.02


def settled(reply: Sequence[Any], my_ids: Sequence[str]) -> list[Answer | None]:
    """What a replay's reply says of each claim, None where it is not final yet. Pure."""
    return [
        answer and _settled(*answer, mine)
        for answer, mine in zip(read_answers(reply), my_ids, strict=True)
    ]


def _settled(outcome: Outcome, held: str, mine: str) -> Answer | None:
    if outcome is Outcome.SOLD or (outcome is Outcome.DUPLICATE and held == mine):
        return Answer(Outcome.SOLD, mine)
    if outcome is Outcome.DUPLICATE:
        return Answer(Outcome.DUPLICATE, held)
    return SHED if outcome is Outcome.SHED else None


class Settlement:
    """Replays lost batches beside the gate, each by itself."""

    def __init__(self, channel: Channel, clock: LedgerClock) -> None:
        self._channel = channel
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.replays = 0

    def __repr__(self) -> str:
        return f"<Settlement open={len(self._tasks)} replays={self.replays}>"

    @property
    def open(self) -> int:
        """Batches whose answers are not known yet."""
        return len(self._tasks)

    def start(self, batch: Batch) -> list[asyncio.Future[Answer]]:
        """Begin to settle `batch`; a future per claim brings its answer."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in batch.order_ids]
        task = loop.create_task(self._settle(batch, futures))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return futures

    async def drain(self) -> None:
        """Wait until nothing is open; bounded by the deadlines and the channel's time-out."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, batch: Batch, futures: list[asyncio.Future[Answer]]) -> None:
        try:
            for attempt in range(REPLAYS_MAX):
                if attempt:
                    await self._until_past(batch.deadline_ms)
                found = await self._replay(batch)
                for future, answer in zip(futures, found, strict=True):
                    if answer is not None and not future.done():
                        future.set_result(answer)
                if all(future.done() for future in futures):
                    return
        finally:  # also where a reply cannot be read: nobody waits for ever
            for future, order_id in zip(futures, batch.order_ids, strict=True):
                if not future.done():
                    future.set_result(Answer(Outcome.UNKNOWN, order_id))

    async def _replay(self, batch: Batch) -> Sequence[Answer | None]:
        self.replays += 1
        try:
            reply = (await self._channel.run([batch.call]))[0]
        except Unavailable:
            return [None] * len(batch.order_ids)
        if isinstance(reply, (Unavailable, Indeterminate)):
            return [None] * len(batch.order_ids)
        return settled(reply, batch.order_ids)

    async def _until_past(self, deadline_ms: int) -> None:
        await asyncio.sleep(
            max(0.0, (deadline_ms + 1) / 1000 - self._clock.now_s()) + _AFTER_DEADLINE_S
        )

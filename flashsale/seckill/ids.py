"""Order ids, and the ledger's clock, which dates them.

An id has 64 bits, a second in the upper half, a leased counter in the lower.

    id = (seconds since 2022-01-01T00:00:00Z) << 32 | counter of the UTC day

The counter lives in the ledger (`icr:order:{yyyy:MM:dd}`) and is leased in blocks, so that an id
costs no round trip. The layout is the hm-dianping family's RedisIdWorker.
Deadlines of claims are set by the same clock: that of the Redis that judges them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from flashsale.errors import Unavailable
from flashsale.keys import WHOLE, Lane

EPOCH_S = 1_640_995_200
COUNTER_MAX = 2**32 - 1
_DAY_S = 86_400
_SECONDS_MAX = 2**31 - 1  # an id is a positive signed 64-bit number, until 2090

Lease = Callable[[str, int, str], Awaitable[int]]
"""Leases n numbers of a day (yyyy:MM:dd) from whoever has this permit; answers the last of them.
Raises on failure."""


class LedgerClock:
    """Redis' time, from its own answers to TIME, carried on by the monotonic clock in between.

    So a local clock that is set, forward or back, changes nothing.
    """

    def __init__(self, read: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        self._read = read
        self._offset_s = time.time() - time.monotonic()  # until Redis says better

    def __repr__(self) -> str:
        return f"<LedgerClock now={self.now_s():.3f} s>"

    def now_s(self) -> float:
        """Unix seconds by Redis' clock."""
        return time.monotonic() + self._offset_s

    def now_ms(self) -> int:
        """Unix milliseconds by Redis' clock."""
        return int(self.now_s() * 1000)

    async def sync(self) -> None:
        """Ask Redis once; the error is at most half the round trip."""
        sent = time.monotonic()
        seconds, micros = await self._read()
        self._offset_s = seconds + micros / 1e6 - (sent + time.monotonic()) / 2


@lru_cache(maxsize=1024)
def day_of(id_seconds: int) -> str:
    """The day whose counter an order id was made of, from the id's upper half. Pure."""
    return Instant(id_seconds + EPOCH_S).day


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of the clock, so that an id's second and its day cannot disagree."""

    unix_s: int

    @property
    def day(self) -> str:
        """yyyy:MM:dd, UTC."""
        return _day(self.unix_s // _DAY_S)


@lru_cache(maxsize=4)  # to spell it costs a claim that comes alone more than its id
def _day(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970 * _DAY_S, UTC).strftime("%Y:%m:%d")


class OrderIds:
    """Hands out order ids from leased blocks.

    Each lane of a ledger has a counter of its own: an id holds `lanes` times its number, plus the
    lane's, so that no two lanes give the same.
    """

    def __init__(
        self, lease: Lease, now_s: Callable[[], float], *, block: int, lane: Lane = WHOLE
    ) -> None:
        self._lease = lease
        self._lane, self._step = lane.number, lane.lanes
        self._now_s = now_s
        self._block = block
        self._day = ""
        self._next = 0
        self._last = -1
        self._permit = ""  # under which the block was leased
        self._taking = asyncio.Lock()  # a block must not be leased for two days at once

    def __repr__(self) -> str:
        left = (self._last - self._next) // self._step + 1
        return f"<OrderIds day={self._day!r} left={left}>"

    async def take(self, count: int, permit: str = "") -> list[str]:
        """`count` fresh ids, as text, leased since `permit` is in force: who wrote it has raised
        the counter beyond all that a ledger had given out which then came back older.

        Raises Unavailable when no block can be leased, the day's counter is spent or the clock is
        beyond what an id can hold; nothing was sold then.
        """
        async with self._taking:
            if permit != self._permit:
                self._permit, self._next, self._last = permit, 0, -1
            return await self._take(Instant(int(self._now_s())), count)

    def at_hand(self, count: int, permit: str, now_s: float) -> list[str]:
        """`count` ids of the block that is there, none where it does not do and they have to be
        taken: the common case, and a claim that comes alone pays for every step of the other.
        `now_s` is the ledger's clock."""
        seconds = int(now_s)
        step = self._step
        first, end, high = self._next, self._next + count * step, seconds - EPOCH_S
        if (
            permit != self._permit
            or end > self._last + step
            or _day(seconds // _DAY_S) != self._day
            or not 0 <= high <= _SECONDS_MAX
        ):
            return []
        self._next = end
        return [str(high << 32 | number) for number in range(first, end, step)]

    async def _take(self, instant: Instant, count: int) -> list[str]:
        seconds = instant.unix_s - EPOCH_S
        if not 0 <= seconds <= _SECONDS_MAX:
            raise Unavailable(f"no order id can be made of the ledger's time {instant.unix_s}")
        day = instant.day
        if day != self._day:  # a new day, or a clock set back: the block is of another counter
            self._day, self._next, self._last = day, 0, -1
        numbers: list[int] = []
        while len(numbers) < count:
            if self._next > self._last:
                await self._refill(day, max(self._block, count - len(numbers)))
            step = self._step
            until = min(self._last + step, self._next + (count - len(numbers)) * step)
            numbers += range(self._next, until, step)
            self._next = until
        return [str(seconds << 32 | number) for number in numbers]

    async def _refill(self, day: str, size: int) -> None:
        last = await self._lease(day, size, self._permit) * self._step + self._lane
        if last > COUNTER_MAX:
            raise Unavailable(f"the order counter of {day} is spent")
        self._next, self._last = last - (size - 1) * self._step, last

"""The limit on loads: so many at a time, so many waiting, and never for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flashsale.errors import Unavailable


class Limit:
    """What stands between a cache that is away and the database behind it."""

    def __init__(self, at_once: int, *, waiting_max: int, wait_s: float) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self.waiting = 0
        self.running = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Limit running={self.running} waiting={self.waiting} refused={self.refused}>"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One turn. Raises Unavailable where too many wait, or ours has waited too long."""
        await self._await_turn()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()

    async def _await_turn(self) -> None:
        if self._turns.locked() and self.waiting >= self._waiting_max:
            self.refused += 1
            raise Unavailable("too many loads wait for the database")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            self.refused += 1
            raise Unavailable("no load was free to begin in time") from None
        finally:
            self.waiting -= 1

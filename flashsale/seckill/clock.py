"""The ledger's clock as a replica sees it: deadlines are set and judged on the same clock."""

import time
from collections.abc import Awaitable, Callable


class LedgerClock:
    """Redis' time, from its own answers to TIME, carried on by the local clock in between."""

    def __init__(self, read: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        self._read = read
        self._offset_s = 0.0

    def __repr__(self) -> str:
        return f"<LedgerClock offset={self._offset_s * 1000:.1f} ms>"

    def now_s(self) -> float:
        """Unix seconds by Redis' clock."""
        return time.time() + self._offset_s

    def now_ms(self) -> int:
        """Unix milliseconds by Redis' clock."""
        return int(self.now_s() * 1000)

    async def sync(self) -> None:
        """Ask Redis once; the error is at most half the round trip."""
        sent = time.time()
        seconds, micros = await self._read()
        self._offset_s = seconds + micros / 1e6 - (sent + time.time()) / 2

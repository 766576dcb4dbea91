"""The breaker: after one failure nobody waits for the cache until a probe has found it again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from flashsale.errors import Indeterminate, Unavailable


class Breaker:
    """Open while the cache is away. Readers never probe: a task does, at once and then often."""

    def __init__(self, probe: Callable[[], Awaitable[object]], *, interval_s: float) -> None:
        self._probe = probe
        self._interval_s = interval_s
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self.is_open = False
        self.opened = 0

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.is_open else 'closed'} opened={self.opened}>"

    def trip(self) -> None:
        """Open it, and begin to probe."""
        if self.is_open:
            return
        self.is_open = True
        self.opened += 1
        if not self._closed:
            self._probing = asyncio.get_running_loop().create_task(self._probe_until_found())

    async def aclose(self) -> None:
        """Stop probing, for good."""
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing

    async def _probe_until_found(self) -> None:
        while True:
            try:
                await self._probe()
            except (Unavailable, Indeterminate):
                await asyncio.sleep(self._interval_s)
            else:
                self.is_open = False
                return

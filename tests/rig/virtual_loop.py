"""An event loop on a clock of its own: nothing waits, and the same seed takes the same turns.

Where nobody is ready, the clock goes on to the next timer at once. There are no sockets, no threads
and no signals: whoever connects is given to `connect`, and what would run in a thread runs in
the loop, after delays that `delays` draws.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from flashsale.seckill import ids, permit
from flashsale.storage import channel

EPOCH_S = 1_790_000_000.0
"""Unix seconds at the beginning of every simulation, by the wall clock of the one who sells."""

Connect = Callable[[Callable[[], Any]], Awaitable[tuple[asyncio.Transport, Any]]]


class Stuck(AssertionError):  # noqa: N818 - a finding, not an error
    """Somebody waits, and nothing will ever wake him."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time passes only where everybody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector: Any = SimpleNamespace(select=self._pass_time)
        self.connect: Connect = _nobody_listens
        self.delays: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)
        self.troubles: list[str] = []
        self.set_exception_handler(lambda _, context: self.troubles.append(str(context)))

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now_s

    async def create_connection(  # type: ignore[override]  # of all its options none means anything
        self, protocol_factory: Callable[[], Any], *_: Any, **__: Any
    ) -> tuple[asyncio.Transport, Any]:
        """What `connect` makes of it."""
        return await self.connect(protocol_factory)

    def run_in_executor(  # type: ignore[override]
        self, _executor: Any, work: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do all of `work` at one instant after a delay; its end is told after another."""
        future: asyncio.Future[Any] = self.create_future()
        before_s, after_s = self.delays()

        def do() -> None:
            try:
                told, outcome = future.set_result, work(*args)
            except Exception as error:  # noqa: BLE001 - it goes to who waits, as from a thread
                told, outcome = future.set_exception, error
            self.call_later(after_s, lambda: None if future.done() else told(outcome))

        self.call_later(before_s, do)
        return future

    def _pass_time(self, timeout_s: float | None) -> tuple[()]:
        if timeout_s is None:
            raise Stuck("somebody waits, and nothing will ever wake him")
        self._now_s += timeout_s
        return ()

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


async def _nobody_listens(_: Callable[[], Any]) -> tuple[asyncio.Transport, Any]:
    raise ConnectionRefusedError


_client = cache(channel.async_client)
"""One for all: with every client redis-py reads from the disk which version it is."""


@contextmanager
def clocks_of(loop: VirtualLoop) -> Iterator[None]:
    """Have everything on the way of a claim tell the time by `loop`'s clock."""
    virtual = SimpleNamespace(monotonic=loop.time, time=lambda: EPOCH_S + loop.time())
    places: list[tuple[Any, str, Any]] = [
        (channel, "monotonic", loop.time),
        (permit, "monotonic", loop.time),
        (ids, "time", virtual),
        (channel, "async_client", _client),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    assert before[:3] == [time.monotonic, time.monotonic, time], "whose clock is it now?"
    for module, name, clock in places:
        setattr(module, name, clock)
    try:
        yield
    finally:
        for (module, name, _), was in zip(places, before, strict=True):
            setattr(module, name, was)

"""The cache of one process: kinds of cached things and Bloom filters over one Redis."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from flashsale.cache.bloom import Bloom
from flashsale.cache.calls import CacheCalls
from flashsale.cache.entry import Limit, Source
from flashsale.cache.strategies import Entries, EntryKind, Strategy
from flashsale.settings import BloomSettings, CacheSettings

log = structlog.get_logger(__name__)

T = TypeVar("T")


class CacheClient:
    """Typed kinds of cached things. Made outside of a loop, used inside of one.

    `calls` is what they ask of Redis; `ask` and `start` are its own, for whoever keeps something
    else in the cache.
    """

    def __init__(self, cache_url: str, settings: CacheSettings, blooms: BloomSettings) -> None:
        self._settings = settings
        self._bloom_settings = blooms
        self.calls = CacheCalls(cache_url, settings)
        self.ask = self.calls.ask
        self.start = self.calls.start
        self.limit = Limit(
            settings.loads_max,
            waiting_max=settings.loads_waiting_max,
            wait_s=settings.loads_wait_ms / 1000,
        )
        self.kinds: dict[str, Entries[Any]] = {}
        self.index_outcomes: dict[str, Counter[Source]] = {}
        self.blooms: dict[str, Bloom] = {}

    def __repr__(self) -> str:
        return f"<CacheClient {self.calls!r} {self.limit!r}>"

    def entries(
        self,
        kind: str,
        load: Callable[[Any], Awaitable[T | None]],
        *,
        strategy: Strategy,
        ttl_s: float,
        bloom: Bloom | None = None,
    ) -> Entries[T]:
        """A kind of cached thing, over `load`, which must read what is committed when called.

        `kind` goes into the keys; "order" belongs to the order workers' locks.
        """
        if kind in self.kinds or kind == "order":
            raise ValueError(f"the kind {kind!r} is taken")
        made = Entries(self.calls, self.limit, EntryKind(kind, strategy, ttl_s, bloom), load)
        self.kinds[kind] = made
        return made

    def bloom(self, name: str) -> Bloom:
        """The filter of that name; the same one whenever asked."""
        if name not in self.blooms:
            self.blooms[name] = Bloom(name, self.ask, self._bloom_settings)
        return self.blooms[name]

    async def keep(self) -> None:
        """Pay what is owed and measure the filters, for as long as the process lives."""
        while True:
            await self.keep_once()
            pause_s = (
                self._settings.probe_ms / 1000
                if self.calls.owed
                else self._settings.keep_interval_s
            )
            await asyncio.sleep(pause_s)

    async def keep_once(self) -> int:
        """Pay and measure once; returns what is still owed.

        Raises what ended the probing of a cache that is away, were it to end by itself.
        """
        self.calls.breaker.check()
        if self.calls.owed and await self.calls.owed.pay():
            log.info("the cache was told of every update again")
        for bloom in self.blooms.values():
            await bloom.measure()
        return len(self.calls.owed)

    async def aclose(self) -> None:
        """Let loads, rebuilds and updates end, each bounded by its own time-out; then close."""
        while self.calls.is_busy or any(kind.is_loading for kind in self.kinds.values()):
            for kind in self.kinds.values():
                await kind.land()
            await self.calls.drain()
            await asyncio.sleep(0)  # whoever was answered goes on
        await self.calls.aclose()

"""The cache of one process: its calls to Redis, and what happens while Redis is away.

Reads that arrive while a call is in flight leave together as one. After one failure the breaker
keeps everybody from waiting for the cache: reads go to their loaders, under a limit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import orjson
import structlog

from flashsale.cache.bloom import Bloom
from flashsale.cache.breaker import Breaker
from flashsale.cache.entries import Entries, Strategy
from flashsale.cache.limit import Limit
from flashsale.cache.lookup import Lookup, Want
from flashsale.cache.owed import Owed
from flashsale.errors import Indeterminate, Unavailable
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.storage.channel import Call, Channel, Lost
from flashsale.storage.gate import Bounds, Gate, GateFull

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CALLS_CONNECTIONS = 2
_AWAY = "the cache is away"


class CacheClient:
    """Typed kinds of cached things over one Redis. Made outside of a loop, used inside of one."""

    def __init__(self, cache_url: str, settings: CacheSettings, blooms: BloomSettings) -> None:
        timeout_s = settings.timeout_ms / 1000
        self.settings = settings
        self._bloom_settings = blooms
        self._reading = Channel(
            cache_url, connections_max=settings.calls_max, timeout_s=timeout_s, text=False
        )
        self._calling = Channel(
            cache_url, connections_max=_CALLS_CONNECTIONS, timeout_s=timeout_s, text=False
        )
        self._probing = Channel(cache_url, connections_max=1, timeout_s=timeout_s, text=False)
        lookup = Lookup(self._reading)
        self.reads: Gate[Want, Any] = Gate(
            self._guarded(lookup.send),
            Bounds(settings.batch_max, settings.calls_max, settings.queue_max),
        )
        self.calls: Gate[Call, Any] = Gate(
            self._guarded(self._calling.run),
            Bounds(settings.batch_max, _CALLS_CONNECTIONS, settings.queue_max),
        )
        self.breaker = Breaker(
            lambda: self._probing.ask("PING"), interval_s=settings.probe_ms / 1000
        )
        self.limit = Limit(
            settings.loads_max,
            waiting_max=settings.loads_waiting_max,
            wait_s=settings.loads_wait_ms / 1000,
        )
        self.owed = Owed(self.ask, most=settings.owed_max)
        self.kinds: dict[str, Entries[Any]] = {}
        self.blooms: dict[str, Bloom] = {}
        self._background: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<CacheClient {self.breaker!r} {self.limit!r} {self.owed!r} {self.reads!r}>"

    @property
    def channels(self) -> dict[str, Channel]:
        """Its connections, by what they are for."""
        return {"cache_read": self._reading, "cache_call": self._calling}

    def entries(
        self,
        kind: str,
        load: Callable[[Any], Awaitable[T | None]],
        *,
        strategy: Strategy,
        ttl_s: float,
        bloom: Bloom | None = None,
        encode: Callable[[T], bytes] = orjson.dumps,
        decode: Callable[[bytes], T] = orjson.loads,
    ) -> Entries[T]:
        """A kind of cached thing, over `load`, which must read what is committed when called.

        `kind` goes into the keys; "order" belongs to the order workers' locks.
        """
        if kind in self.kinds or kind == "order":
            raise ValueError(f"the kind {kind!r} is taken")
        made = Entries(
            self, kind, load, strategy=strategy, ttl_s=ttl_s, bloom=bloom, codec=(encode, decode)
        )
        self.kinds[kind] = made
        return made

    def bloom(self, name: str) -> Bloom:
        """The filter of that name; the same one whenever asked."""
        if name not in self.blooms:
            self.blooms[name] = Bloom(name, self.ask, self._bloom_settings)
        return self.blooms[name]

    def find(self, want: Want) -> asyncio.Future[Any]:
        """Queue a read. The future brings the entry as bytes, 0 where the filter knows that
        there is none, something else where there is no entry; or raises Unavailable, as this does.
        """
        if self.breaker.is_open:
            raise Unavailable(_AWAY)
        try:
            return self.reads.enter(want)
        except GateFull as error:
            raise Unavailable("too many reads wait for the cache") from error

    async def ask(self, call: Call) -> Any:
        """The reply to one script. Raises Unavailable or Indeterminate."""
        if self.breaker.is_open:
            raise Unavailable(_AWAY)
        try:
            reply = await self.calls.enter(call)
        except GateFull as error:
            raise Unavailable("too many calls wait for the cache") from error
        if isinstance(reply, (Unavailable, Indeterminate)):
            raise reply
        return reply

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` to its end, whoever is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    async def keep(self) -> None:
        """Pay what is owed and measure the filters, for as long as the process lives."""
        while True:
            await self.keep_once()
            pause_s = self.settings.probe_ms / 1000 if self.owed else self.settings.keep_interval_s
            await asyncio.sleep(pause_s)

    async def keep_once(self) -> int:
        """Pay and measure once; returns what is still owed."""
        if self.owed and await self.owed.pay():
            log.info("the cache was told of every update again")
        for bloom in self.blooms.values():
            await bloom.measure()
        return len(self.owed)

    async def aclose(self) -> None:
        """Let loads, rebuilds and updates end, each bounded by its own time-out; then close."""
        while self._is_busy:
            await asyncio.gather(*self._background, return_exceptions=True)
            for kind in self.kinds.values():
                await kind.land()
            await self.reads.drain()
            await self.calls.drain()
            await asyncio.sleep(0)  # whoever was answered goes on
        await self.breaker.aclose()
        for channel in (self._reading, self._calling, self._probing):
            await channel.aclose()

    @property
    def _is_busy(self) -> bool:
        gates = (self.reads, self.calls)
        return (
            bool(self._background)
            or any(kind.is_loading for kind in self.kinds.values())
            or any(gate.waiting or gate.in_flight for gate in gates)
        )

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, should its caller be gone

    def _guarded(
        self, send: Callable[[Any], Awaitable[Sequence[Any]]]
    ) -> Callable[[list[Any]], Awaitable[Sequence[Any]]]:
        """`send`, refusing while the breaker is open, and opening it when a call is lost."""

        async def guarded(items: list[Any]) -> Sequence[Any]:
            if self.breaker.is_open:
                raise Unavailable(_AWAY)  # queued before it opened
            try:
                replies = await send(items)
            except Unavailable:
                self._trip()
                raise
            if any(isinstance(reply, Lost) for reply in replies):
                self._trip()
            return replies

        return guarded

    def _trip(self) -> None:
        if not self.breaker.is_open:
            log.warning("the cache does not answer; reads go to the database")
        self.breaker.trip()

"""The storefront's cache, for commands: what seeding adds to it and what warming fills it with.

The cache speaks asyncio alone, so this brings a loop of its own, for as long as the block runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from redis import Redis

from flashsale import keys
from flashsale.cache.bloom import Bloom
from flashsale.cache.client import CacheClient
from flashsale.catalog.storefront import Storefront
from flashsale.catalog.warming import LOCK
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.locks.task import LockLost, TaskLocks
from flashsale.seeding.dataset import Portion
from flashsale.seeding.existing import unlink
from flashsale.seeding.settings import Progress
from flashsale.seeding.stores import StoreUrls
from flashsale.settings import BloomSettings, CacheSettings, CatalogSettings, LockSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, engine
from flashsale.storage.tables import blog, shop

T = TypeVar("T")

_THREADS = 4
_PATIENCE_S = 120.0
"""For a replica that warms, or the lease of one that died at it."""


class StorefrontCache:
    """Made by `storefront_cache`. Its calls raise UnreachableError for a store."""

    def __init__(self, runner: asyncio.Runner, parts: Storefront, locks: TaskLocks) -> None:
        self._runner = runner
        self._parts = parts
        self._locks = locks

    def __repr__(self) -> str:
        return f"<StorefrontCache {self._parts!r}>"

    def expect(self, portion: Portion) -> None:
        """Let the filters know of rows that are about to be written, so that none is denied."""
        filters: dict[str, Bloom] = {
            shop.name: self._parts.shops.ids,
            blog.name: self._parts.blogs.ids,
        }
        ids = filters.get(portion.table.name)
        if ids is not None and self._run(ids.present):
            self._run(lambda: ids.add(portion.ids))

    def refresh(self, cache: Redis) -> None:
        """Forget what was cached of older rows, and make the filters anew, sized for the rows."""
        unlink(cache, keys.belongs_to_pages)
        self._run(lambda: self._alone(self._parts.warming.fill_filters))

    def warm(self, progress: Progress) -> dict[str, int]:
        """Fill the cache; how many things of each kind were put in place."""
        warming = self._parts.warming

        async def every_step() -> dict[str, int]:
            done: dict[str, int] = {}
            for name, step in warming.steps:
                done[name] = await step()
                progress.advance(1)
            await warming.mark()
            return done

        progress.begin("cache", len(warming.steps))
        return self._run(lambda: self._alone(every_step))

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work` under the lock of the replicas that warm: two rebuilds would end one another."""
        async with self._locks.lock(LOCK, wait_s=_PATIENCE_S):
            return await work()

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        try:
            return self._runner.run(run())
        except (Unavailable, Indeterminate, LockLost) as trouble:
            raise UnreachableError(
                f"the cache cannot be filled: {trouble}; the same command goes on from here"
            ) from trouble


@contextmanager
def storefront_cache(
    urls: StoreUrls, catalog: CatalogSettings | None = None
) -> Iterator[StorefrontCache]:
    """The storefront over the stores at `urls`, which have answered before."""
    cache = CacheClient(urls.cache_url, CacheSettings.load(), BloomSettings.load())
    ledger = Channel(urls.ledger_url, connections_max=1, timeout_s=2.0)
    database = Database(engine(urls.mysql_url), threads_max=_THREADS)
    parts = Storefront(database, cache, ledger, catalog or CatalogSettings.load())
    locks = TaskLocks(urls.cache_url, urls.ledger_url, LockSettings.load())

    async def close() -> None:
        for part in (locks, parts, ledger):
            await part.aclose()

    with asyncio.Runner() as runner:
        try:
            yield StorefrontCache(runner, parts, locks)
        finally:
            runner.run(close())
            database.close()

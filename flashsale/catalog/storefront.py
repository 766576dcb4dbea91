"""The storefront of one process: its parts, put together once for replicas and for `warm`; and
warming: what its cache should hold before anybody asks for it, and seeing that it does.

`flashsale warm` does it once. A cache that lost everything has lost its boot marker too: the first
replica that misses it warms the cache again, under a lock, while the others read on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Column, Connection, func, select

from flashsale import keys
from flashsale.cache.bloom import Bloom
from flashsale.cache.client import CacheClient
from flashsale.catalog.blog import Blogs
from flashsale.catalog.indexes import ShopGeo
from flashsale.catalog.people import Feeds, People
from flashsale.catalog.shop import Shops, ShopTypes
from flashsale.catalog.voucher import Vouchers
from flashsale.errors import Indeterminate, Unavailable
from flashsale.locks.task import LockHeld, LockLost, TaskLocks
from flashsale.lua.scripts import Call, script
from flashsale.settings import CatalogSettings
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import Database
from flashsale.storage.tables import blog, dataset, shop, shop_type


class Storefront:
    """Shops, vouchers, blogs and people over one cache. Database and ledger are the caller's."""

    def __init__(
        self,
        database: Database,
        cache: CacheClient,
        ledger: LedgerChannel,
        settings: CatalogSettings,
    ) -> None:
        self.cache = cache
        self.geo = ShopGeo(cache, database, settings)
        self.types = ShopTypes(database, cache, settings)
        self.shops = Shops(database, cache, self.geo, self.types, settings)
        self.vouchers = Vouchers(database, cache, ledger, self.shops, settings)
        self.feeds = Feeds(database, cache, settings)
        self.people = People(database, cache, self.feeds, settings)
        self.blogs = Blogs(database, cache, self.feeds, settings)
        self.warming = Warming(database, cache, self.shops, self.blogs, settings)

    def __repr__(self) -> str:
        return f"<Storefront {self.cache!r}>"

    def duties(self, locks: TaskLocks) -> list[Coroutine[Any, Any, None]]:
        """What a replica does beside answering, for as long as it lives; to be made into tasks."""
        return [self.cache.keep(), self.geo.keep(), self.warming.keep(locks)]

    async def aclose(self) -> None:
        """Let what is under way end, then close the cache."""
        await self.shops.names.aclose()
        await self.cache.aclose()


log = structlog.get_logger(__name__)


# Warming -----------------------------------------------------------------------------------------

LOCK = "warm"
"""The lock under which a replica warms the cache."""

Step = Callable[[], Awaitable[int]]

_MARK = script("boot_mark")
_CHUNK = 10_000
_TRIES = 3


class Warming:
    """Fills the filters, the geo indexes and the hot entries.

    Every step can be repeated, and run beside itself; the lock only saves the work.
    """

    def __init__(
        self,
        database: Database,
        cache: CacheClient,
        shops: Shops,
        blogs: Blogs,
        settings: CatalogSettings,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shops = shops
        self._blogs = blogs
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Warming hot_shops={self._settings.hot_shops}>"

    @property
    def steps(self) -> Sequence[tuple[str, Step]]:
        """What there is to do, by name; each step tells how many things it put in place.

        A step raises Unavailable or Indeterminate for a store that does not answer.
        """
        return (
            ("ids in filters", self.fill_filters),
            ("geo indexes", self._build_indexes),
            ("hot entries", self._warm_hot),
        )

    async def run(self) -> dict[str, int]:
        """Every step, then the marker. Raises Unavailable or Indeterminate."""
        done = {name: await step() for name, step in self.steps}
        await self.mark()
        return done

    async def mark(self) -> None:
        """Note that the cache is warm, by the id of the data set that it holds."""
        await self._cache.ask(Call(_MARK, (keys.CACHE_BOOT,), (await self._dataset() or "-",)))

    async def is_marked(self) -> bool:
        """True where the cache holds what `warm` put there. Raises Unavailable, Indeterminate."""
        return await self._cache.ask(Call(_MARK, (keys.CACHE_BOOT,), ())) is not None

    async def fill_filters(self) -> int:
        """Make both Bloom filters anew; how many ids they hold.

        Without the time that a rebuild otherwise gives to transactions under way: whoever adds
        an id does it again after the COMMIT.
        """
        return sum(
            await asyncio.gather(
                self._fill(self._shops.ids, shop.c.id), self._fill(self._blogs.ids, blog.c.id)
            )
        )

    async def check(self, locks: TaskLocks) -> bool:
        """Warm the cache where its marker is missing; True where this did it.

        Raises Unavailable, Indeterminate or LockLost.
        """
        if await self.is_marked() or await self._dataset() is None:
            return False
        try:
            async with locks.lock(LOCK, wait_s=0):
                if await self.is_marked():
                    return False
                log.info("the cache was cold and is warm now", done=await self.run())
                return True
        except LockHeld:
            return False  # another replica is at it

    async def keep(self, locks: TaskLocks) -> None:
        """Check now and then, for as long as the replica lives."""
        while True:
            await asyncio.sleep(self._settings.warm_check_s)
            try:
                await self.check(locks)
            except (Unavailable, Indeterminate, LockLost) as trouble:
                log.info("the cache was not warmed", trouble=str(trouble))

    async def _build_indexes(self) -> int:
        query = select(shop_type.c.id)
        types = await self._database.run(lambda c: list(c.execute(query).scalars()))
        return sum([await self._shops.geo.build(type_id) for type_id in types])

    async def _warm_hot(self) -> int:
        most_sold = select(shop.c.id).order_by(shop.c.sold.desc(), shop.c.id)
        query = most_sold.limit(self._settings.hot_shops)
        hot = await self._database.run(lambda c: list(c.execute(query).scalars()))
        return (
            await self._shops.types.warm()
            + await self._blogs.warm()
            + await self._shops.entries.warm(hot)
        )

    async def _fill(self, ids: Bloom, column: Column[int]) -> int:
        query = select(func.count()).select_from(column.table)
        expected = await self._database.run(lambda c: int(c.execute(query).scalar_one()))
        for _ in range(_TRIES - 1):
            with suppress(Unavailable):  # superseded by one that began later, and may end sooner
                return await ids.rebuild(self._chunks(column), expected=expected, settle_ms=0)
        return await ids.rebuild(self._chunks(column), expected=expected, settle_ms=0)

    async def _chunks(self, column: Column[int]) -> AsyncIterator[Sequence[int]]:
        after = 0
        while ids := await self._database.run(partial(_ids_after, column=column, after=after)):
            yield ids
            after = ids[-1]

    async def _dataset(self) -> str | None:
        query = select(dataset.c.id).order_by(dataset.c.create_time)
        return await self._database.run(lambda c: c.execute(query).scalars().first())


def _ids_after(connection: Connection, column: Column[int], after: int) -> list[int]:
    query = select(column).where(column > after).order_by(column).limit(_CHUNK)
    return list(connection.execute(query).scalars())

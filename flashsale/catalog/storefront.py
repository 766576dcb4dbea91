"""The storefront of one process: its parts, put together once for replicas and for `warm`."""

from collections.abc import Coroutine
from typing import Any

from flashsale.cache.client import CacheClient
from flashsale.catalog.blog import Blogs
from flashsale.catalog.feed import Feeds
from flashsale.catalog.geo import ShopGeo
from flashsale.catalog.people import People
from flashsale.catalog.shop import Shops, ShopTypes
from flashsale.catalog.voucher import Vouchers
from flashsale.catalog.warming import Warming
from flashsale.locks.task import TaskLocks
from flashsale.settings import CatalogSettings
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import Database


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
        self.warming = Warming(
            database, cache, self.shops, self.types, self.blogs, self.geo, settings
        )

    def __repr__(self) -> str:
        return f"<Storefront {self.cache!r}>"

    def duties(self, locks: TaskLocks) -> list[Coroutine[Any, Any, None]]:
        """What a replica does beside answering, for as long as it lives; to be made into tasks."""
        return [self.cache.keep(), self.geo.keep(), self.warming.keep(locks)]

    async def aclose(self) -> None:
        """Let what is under way end, then close the cache."""
        await self.shops.names.aclose()
        await self.cache.aclose()

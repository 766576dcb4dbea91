"""Kinds of shops: a short list, kept warm as one entry."""

from sqlalchemy import select

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Cached
from flashsale.cache.strategies import Strategy
from flashsale.catalog.record import Record, record
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database
from flashsale.storage.tables import shop_type

ALL = "all"


class ShopTypes:
    """The list of all types. Nothing here changes them, so its lifetime is all its freshness."""

    def __init__(self, database: Database, cache: CacheClient, settings: CatalogSettings) -> None:
        self._database = database
        self._lists = cache.entries(
            "shop-type", self._load, strategy=Strategy.LOGICAL, ttl_s=settings.shop_ttl_s
        )

    def __repr__(self) -> str:
        return f"<ShopTypes {self._lists!r}>"

    async def everything(self) -> Cached[list[Record]]:
        """Every type, in the order in which they are shown."""
        return await self._lists.read(ALL)

    async def warm(self) -> int:
        """Put the list into the cache for good; how many entries that were."""
        return await self._lists.warm([ALL])

    async def _load(self, _: int | str) -> list[Record] | None:
        columns = shop_type.c
        query = select(columns.id, columns.name, columns.icon, columns.sort)
        ordered = query.order_by(columns.sort, columns.id)
        rows = await self._database.run(lambda connection: connection.execute(ordered).all())
        return [record(row) for row in rows]

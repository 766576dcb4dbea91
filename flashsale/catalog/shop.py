"""Shops and their types: read one, list them by type, by distance, by name; create and change them.

A list is a page of ids, cached for a short while, and each shop of it is read as a shop read by
itself would be: a list may lag in who is on it, never in what it says of them.
"""

import asyncio
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Cached, Limit
from flashsale.cache.strategies import Strategy
from flashsale.catalog.indexes import ShopGeo
from flashsale.catalog.json import (
    NewShop,
    Page,
    Record,
    ShopChange,
    assemble,
    bodies,
    extended,
    record,
    shape_of,
)
from flashsale.catalog.names import ShopNames
from flashsale.errors import Unavailable
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database
from flashsale.storage.tables import shop, shop_type

ALL = "all"
_SEARCHES_MAX, _SEARCHES_WAITING_MAX, _SEARCH_WAIT_S = 2, 4, 2.0
"""Searches that MySQL does look at every name. Few at a time, and few that wait, so that they hold
few of the slots that all loads share; one more is 503."""
TYPE_PAGE = 5
NAME_PAGE = 10
SHOP = shape_of(shop.c)
NEAR_SHOP = shape_of(shop.c, distance={"type": "number", "minimum": 0})
_TYPE = (shop_type.c.id, shop_type.c.name, shop_type.c.icon, shop_type.c.sort)
SHOP_TYPE = shape_of(_TYPE)


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
        ordered = select(*_TYPE).order_by(shop_type.c.sort, shop_type.c.id)
        rows = await self._database.run(lambda connection: connection.execute(ordered).all())
        return [record(row) for row in rows]


class ShopChanged(Enum):
    """What became of a change."""

    DONE = auto()
    NO_SHOP = auto()
    NO_TYPE = auto()


class Shops:
    """All shops. Calls may raise Unavailable or Indeterminate."""

    def __init__(
        self,
        database: Database,
        cache: CacheClient,
        geo: ShopGeo,
        types: ShopTypes,
        settings: CatalogSettings,
    ) -> None:
        self._database = database
        self._cache = cache
        self.geo = geo
        self.types = types
        self.ids = cache.bloom("shop")
        self.entries = cache.entries(
            "shop",
            self._load,
            strategy=Strategy.LOGICAL,
            ttl_s=settings.shop_ttl_s,
            bloom=self.ids,
        )
        self._searches = Limit(
            _SEARCHES_MAX, waiting_max=_SEARCHES_WAITING_MAX, wait_s=_SEARCH_WAIT_S
        )
        self.names = ShopNames(database, names_max=settings.names_max)
        self._load_delay_s = settings.load_delay_ms / 1000
        list_ttl_s = settings.list_ttl_s
        self._by_type = cache.entries(
            "shop-type-page", self._load_type_page, strategy=Strategy.MUTEX, ttl_s=list_ttl_s
        )
        self._by_name = cache.entries(
            "shop-name-page", self._load_name_page, strategy=Strategy.MUTEX, ttl_s=list_ttl_s
        )

    def __repr__(self) -> str:
        return f"<Shops {self.entries!r}>"

    async def read(self, shop_id: int) -> Cached[Record]:
        """One shop: Bloom filter, then the warmed entry, else one that is loaded under a mutex."""
        return await self.entries.read(shop_id)

    async def near(self, type_id: int, number: int, x: float, y: float) -> Page:
        """The shops of a type by their distance from x, y, each with it, in metres."""
        types = await self.types.everything()
        if not _has_type(types, type_id):
            return assemble([], [types.source])
        nearby, source = await self.geo.near(type_id, x, y, _places(number, TYPE_PAGE))
        answers = await asyncio.gather(*(self.read(place.shop_id) for place in nearby))
        shops = [
            extended(answer.body, distance=place.metres)
            for answer, place in zip(answers, nearby, strict=True)
            if answer.body is not None
        ]
        return assemble(shops, [types.source, source, *(answer.source for answer in answers)])

    async def of_type(self, type_id: int, number: int) -> Page:
        """The shops of a type, by id."""
        types = await self.types.everything()
        if not _has_type(types, type_id):
            return assemble([], [types.source])
        return await self._page(await self._by_type.read(f"{type_id}:{number}"))

    async def named(self, name: str, number: int) -> Page:
        """The shops whose name contains `name`, by id; every shop for an empty one."""
        return await self._page(await self._by_name.read(f"{number}:{name}"))

    async def create(self, new: NewShop) -> int | None:
        """The id of a new shop, None where its type does not exist. Runs to its end."""
        return await asyncio.shield(self._cache.start(self._create(new)))

    async def change(self, change: ShopChange) -> ShopChanged:
        """Change a shop, then drop what the cache holds of it. Runs to its end."""
        return await asyncio.shield(self._cache.start(self._change(change)))

    async def _create(self, new: NewShop) -> int | None:
        loop = asyncio.get_running_loop()
        made: list[int] = []

        def work(connection: Connection) -> int | None:
            if not _type_exists(connection, new.type_id):
                return None
            inserted = connection.execute(insert(shop).values(new.model_dump()))
            made.append(inserted.lastrowid)
            self.ids.add_from_thread(made, loop)  # or it would be denied once it is there
            return made[0]

        try:
            return await self._database.run(work)
        finally:  # also where the COMMIT's answer was lost
            if made:
                await self._created(made[0], new.type_id)

    async def _created(self, shop_id: int, type_id: int) -> None:
        await self.entries.invalidate(shop_id)  # somebody may have asked for it too early
        await self.geo.forget(type_id)
        with suppress(Unavailable):  # once more, for a filter that was rebuilt in between
            await self.ids.add([shop_id])

    async def _change(self, change: ShopChange) -> ShopChanged:
        touched: set[int] = set()

        def work(connection: Connection) -> ShopChanged:
            places = select(shop.c.type_id, shop.c.x, shop.c.y).where(shop.c.id == change.id)
            before = connection.execute(places.with_for_update()).first()
            if before is None:
                return ShopChanged.NO_SHOP
            if change.type_id is not None and not _type_exists(connection, change.type_id):
                return ShopChanged.NO_TYPE
            values = change.model_dump(exclude={"id"}, exclude_none=True)
            if values:
                connection.execute(update(shop).where(shop.c.id == change.id).values(values))
            after = connection.execute(places).one()
            if tuple(after) != tuple(before):
                touched.update((before.type_id, after.type_id))
            return ShopChanged.DONE

        try:
            return await self.entries.update([change.id], lambda: self._database.run(work))
        finally:  # also where the COMMIT's answer was lost
            if touched:
                await self.geo.forget(*touched)

    async def _page(self, ids: Cached[list[int]]) -> Page:
        answers = await asyncio.gather(*(self.read(shop_id) for shop_id in ids.value or []))
        return assemble(bodies(answers), [ids.source, *(answer.source for answer in answers)])

    async def _load(self, shop_id: int | str) -> Record | None:
        if self._load_delay_s:
            await asyncio.sleep(self._load_delay_s)
        query = select(shop).where(shop.c.id == shop_id)
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else record(row)

    async def _load_type_page(self, key: int | str) -> list[int] | None:
        type_id, _, number = str(key).partition(":")
        query = select(shop.c.id).where(shop.c.type_id == int(type_id))
        return await self._load_page(query, int(number), TYPE_PAGE)

    async def _load_name_page(self, key: int | str) -> list[int] | None:
        number, _, name = str(key).partition(":")
        if not name:
            return await self._load_page(select(shop.c.id), int(number), NAME_PAGE)
        found = await self.names.find(name, _places(int(number), NAME_PAGE))
        if found is not None:
            return found
        async with self._searches.turn():
            return await self._load_page(names_with(name), int(number), NAME_PAGE)

    async def _load_page(self, query: Select[Any], number: int, size: int) -> list[int]:
        places = _places(number, size)
        page = query.order_by(shop.c.id).offset(places.start).limit(size)
        return await self._database.run(lambda connection: list(connection.execute(page).scalars()))


def names_with(text: str) -> Select[Any]:
    """The ids of shops whose name contains `text`.

    All names are looked at, in the index of names alone: a tenth of what the rows have.
    """
    return (
        select(shop.c.id)
        .with_hint(shop, "FORCE INDEX (ix_shop_name)", "mysql")
        .where(shop.c.name.contains(text, autoescape=True))
    )


def _places(number: int, size: int) -> range:
    return range((number - 1) * size, number * size)


def _has_type(types: Cached[list[Record]], type_id: int) -> bool:
    return any(known["id"] == type_id for known in types.value or [])


def _type_exists(connection: Connection, type_id: int) -> bool:
    query = select(shop_type.c.id).where(shop_type.c.id == type_id)
    return connection.execute(query).first() is not None

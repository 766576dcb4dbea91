"""Which shops of a type are near: a geo index in the cache for each type, made from MySQL.

An index that is not there is rebuilt, never taken for empty. Whoever changes a shop drops the
index and the lock of whoever is just building one, after the COMMIT, so that no index outlives
what it was read from. Where the cache is away, MySQL measures.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, func, select

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source
from flashsale.catalog.json import LATITUDE_MAX
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database
from flashsale.storage.tables import shop

log = structlog.get_logger(__name__)
_NEAR = script("geo_near")
_BEGIN = script("geo_begin")
_ADD = script("geo_add")
_FILL = script("geo_fill")
_DROP = script("geo_drop")
_BEGUN, _THERE = 1, 2  # what geo_begin.lua replies
_NO_SHOP = 0
_CHUNK = 1_000
_TRIES = 20
_RETRY_S = 0.05
_KEEP_S = 0.5
_METRE_DIGITS = 4  # as Redis tells distances: what is equal to them is ordered by id
_EARTH_RADIUS_M = 6_372_797.560856  # Redis' own


@dataclass(frozen=True, slots=True)
class Nearby:
    """A shop and how far it is."""

    shop_id: int
    metres: float


class ShopGeo:
    """The geo indexes of all types."""

    def __init__(self, cache: CacheClient, database: Database, settings: CatalogSettings) -> None:
        self._cache = cache
        self._database = database
        self._settings = settings
        self._owed: set[int] = set()
        self._builds: dict[int, asyncio.Task[bool]] = {}
        self.builds = 0

    def __repr__(self) -> str:
        return f"<ShopGeo builds={self.builds} owed={sorted(self._owed)}>"

    async def near(
        self, type_id: int, x: float, y: float, places: range
    ) -> tuple[list[Nearby], Source]:
        """The shops at `places` (from 0) in the order of their distance from x, y,
        and of their id where that is equal.

        Raises Unavailable or Indeterminate where neither the cache nor MySQL answers.
        """
        source = Source.HIT
        try:
            for _ in range(_TRIES):
                found = await self._search(type_id, x, y, places.stop)
                if found is not None:
                    return found[places.start :], source
                source = Source.LOAD
                if not await self._built(type_id):
                    await asyncio.sleep(_RETRY_S)  # another is at it, or it was overtaken
        except (Unavailable, Indeterminate) as trouble:
            log.warning("MySQL measures distances", trouble=str(trouble))
        return await self._measured(type_id, x, y, places), Source.LOAD

    async def forget(self, *type_ids: int) -> None:
        """Drop the indexes of `type_ids`, after the COMMIT of what changed them.

        Where the cache is away that is owed, and `keep` sees to it.
        """
        self._owed.update(type_ids)
        await self._pay()

    async def keep(self) -> None:
        """Drop what could not be dropped, for as long as the replica lives."""
        while True:
            await asyncio.sleep(_KEEP_S)
            if self._owed:
                await self._pay()

    async def build(self, type_id: int, *, anew: bool = True) -> bool:
        """Make the index from MySQL, `anew` or only where it is absent; whether it is there.

        False where another is at it or a change overtook it. Raises Unavailable or Indeterminate.
        """
        token, settings, index = secrets.token_hex(8), self._settings, keys.shop_geo(type_id)
        lock, built = keys.shop_geo_lock(type_id), keys.shop_geo_build(type_id, token)
        args = (token, settings.geo_lease_ms, _NO_SHOP, int(anew))
        begun = await self._cache.ask(Call(_BEGIN, (lock, built, index), args))
        if begun != _BEGUN:
            return bool(begun == _THERE)
        self.builds += 1
        async for words in self._places(type_id):
            if not await self._is_done(_ADD, (lock, built), token, *words):
                return False
        return await self._is_done(_FILL, (lock, built, index), token, settings.geo_ttl_s)

    async def _built(self, type_id: int) -> bool:
        """One build a process and type at a time; who comes later waits for the same."""
        task = self._builds.get(type_id)
        if task is None:
            task = self._cache.start(self.build(type_id, anew=False))
            self._builds[type_id] = task
            task.add_done_callback(lambda _: self._builds.pop(type_id, None))
        return await asyncio.shield(task)

    async def _is_done(self, what: Any, names: tuple[str, ...], *args: str | int) -> bool:
        return bool(await self._cache.ask(Call(what, names, args)) == 1)

    async def _search(self, type_id: int, x: float, y: float, most: int) -> list[Nearby] | None:
        """The nearest up to `most`; None where there is no index."""
        args = (str(x), str(y), self._settings.radius_m, most + 1)
        found = await self._cache.ask(Call(_NEAR, (keys.shop_geo(type_id),), args))
        if found is None:
            return None
        shops = (Nearby(int(member), float(metres)) for member, metres in found)
        near = [place for place in shops if place.shop_id != _NO_SHOP]
        return sorted(near, key=lambda place: (place.metres, place.shop_id))[:most]

    async def _places(self, type_id: int) -> AsyncIterator[list[str]]:
        """Longitude, latitude and id of every shop of the type, as text, in chunks."""
        after = 0
        while rows := await self._database.run(partial(_chunk, type_id=type_id, after=after)):
            yield [str(word) for shop_id, x, y in rows for word in (x, y, shop_id)]
            after = rows[-1][0]

    async def _measured(self, type_id: int, x: float, y: float, places: range) -> list[Nearby]:
        far = _distance_m(x, y)
        query = (
            select(shop.c.id, far.label("metres"))
            .where(shop.c.type_id == type_id, far <= self._settings.radius_m)
            .order_by(func.round(far, _METRE_DIGITS), shop.c.id)
            .offset(places.start)
            .limit(len(places))
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return [Nearby(row.id, round(row.metres, _METRE_DIGITS)) for row in rows]

    async def _pay(self) -> None:
        owed = list(self._owed)
        names = [name for t in owed for name in (keys.shop_geo(t), keys.shop_geo_lock(t))]
        try:
            await self._cache.ask(Call(_DROP, names, ()))
        except (Unavailable, Indeterminate):
            self._owed.update(owed)  # an earlier drop that got through must not clear this debt
            return
        self._owed.difference_update(owed)


def _chunk(connection: Connection, type_id: int, after: int) -> list[tuple[int, float, float]]:
    query = select(shop.c.id, shop.c.x, shop.c.y).where(
        shop.c.type_id == type_id, shop.c.id > after, func.abs(shop.c.y) <= LATITUDE_MAX
    )
    rows = connection.execute(query.order_by(shop.c.id).limit(_CHUNK))
    return [(row.id, row.x, row.y) for row in rows]


def _distance_m(x: float, y: float) -> ColumnElement[float]:
    """Metres from x, y by the haversine formula, as Redis has it."""
    across = func.sin((func.radians(shop.c.x) - func.radians(x)) / 2)
    along = func.sin((func.radians(shop.c.y) - func.radians(y)) / 2)
    level = func.cos(func.radians(shop.c.y)) * func.cos(func.radians(y))
    chord = along * along + level * across * across
    metres: ColumnElement[float] = 2 * _EARTH_RADIUS_M * func.asin(func.sqrt(chord))
    return metres

"""Indexes in the cache, each of which MySQL can make again: sets, sorted sets, and which shops of a
type are near.

An index that is not there is read from MySQL and put in place, never taken for empty: nobody, the
member 0, is in each of them. Whoever changes what it was read from drops it after the COMMIT,
together with the lock of who is just reading it, so that older data never comes back. Where the
cache is away, whoever asks does what it was asked for on what MySQL says, and measures there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, func, select

from flashsale import keys
from flashsale.cache.calls import Pair
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source, new_token
from flashsale.catalog.json import LATITUDE_MAX
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, Script, Word, script
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database
from flashsale.storage.tables import shop

log = structlog.get_logger(__name__)

R = TypeVar("R")

_TAKE = script("cache_take")
_FILL = script("index_fill")
_RELEASE = script("lock_release")
_PUSH = script("index_push")
_NOBODY = 0
_BELOW_ALL = -1
_WHATEVER_IS_THERE = -1
_TRIES = 20
_RETRY_S = 0.05
_PUSHED_AT_ONCE = 250


class IndexMember(NamedTuple):
    """Who is in an index. Scores of a set mean nothing."""

    id: int
    score: int = 0


Load = Callable[[int], Awaitable[Sequence[IndexMember]]]


class _Builds:
    """One build a process and index at a time; who comes later waits for the same."""

    def __init__(self, cache: CacheClient) -> None:
        self._start = cache.start
        self._open: dict[int, asyncio.Task[bool]] = {}

    async def join(self, index_id: int, build: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """What a build of this index that is under way says, else `build`."""
        task = self._open.get(index_id)
        if task is None:
            task = self._open[index_id] = self._start(build())
            task.add_done_callback(lambda _: self._open.pop(index_id, None))
        return await asyncio.shield(task)


class Indexes:
    """The indexes of one kind, one an id, over `load`, which must read what is committed when
    called; their calls raise what that raises."""

    def __init__(
        self,
        cache: CacheClient,
        name: str,
        keys_of: Callable[[int], Pair],
        load: Load,
        *,
        is_sorted: bool,
        ttl_s: float,
    ) -> None:
        self._calls = cache.calls
        self._limit = cache.limit
        self._keys_of = keys_of
        self._load = load
        self._is_sorted = is_sorted
        self._ttl_ms = round(ttl_s * 1000)
        self._builds = _Builds(cache)
        self.outcomes: Counter[Source] = Counter()
        cache.index_outcomes[name] = self.outcomes

    def __repr__(self) -> str:
        return f"<Indexes {dict(self.outcomes)}>"

    async def ask(self, what: Script, ids: Sequence[int], *args: Word) -> Sequence[int] | None:
        """The reply of a script to the indexes of `ids`, without nobody; None where the cache
        cannot say, and MySQL has to be asked by `load`."""
        pairs = [self._keys_of(each) for each in ids]
        if any(index in self._calls.owed for index, _ in pairs):
            return None
        call, source = Call(what, [index for index, _ in pairs], args), Source.HIT
        try:
            for _ in range(_TRIES):
                reply = await self._calls.ask(call)
                if reply is not None:
                    self.outcomes[source] += 1
                    return [number for word in reply if (number := int(word)) != _NOBODY]
                source = Source.WAIT
                if not all([await self._built(each) for each in ids]):
                    await asyncio.sleep(_RETRY_S)  # another is at it, or it was overtaken
        except (Unavailable, Indeterminate):
            pass
        return None

    async def load(self, index_id: int) -> Sequence[IndexMember]:
        """What MySQL says, in a turn of those that all loads share."""
        async with self._limit.turn():
            self.outcomes[Source.LOAD] += 1
            return await self._load(index_id)

    async def update(self, ids: Sequence[int], work: Callable[[], Awaitable[R]]) -> R:
        """What `work` returns, run to its end even if the caller is cancelled; then drop `ids`.

        Raises Unavailable before it begins where the cache is owed too much.
        """
        self._calls.owed.check_room(len(ids))
        return await asyncio.shield(self._calls.start(self._update(ids, work)))

    async def push(self, ids: Sequence[int], member: IndexMember, *, keep: int) -> None:
        """Add `member` to those of the indexes that are there, and keep the newest of each."""
        for start in range(0, len(ids), _PUSHED_AT_ONCE):
            pairs = [self._keys_of(each) for each in ids[start : start + _PUSHED_AT_ONCE]]
            names = [name for pair in pairs for name in pair]
            try:
                await self._calls.ask(Call(_PUSH, names, (member.score, member.id, keep)))
            except (Unavailable, Indeterminate):
                await self._calls.owed.drop(pairs)

    async def _update(self, ids: Sequence[int], work: Callable[[], Awaitable[R]]) -> R:
        try:
            return await work()
        finally:  # also where the COMMIT's answer was lost
            await self._calls.owed.drop([self._keys_of(each) for each in ids])

    async def _built(self, index_id: int) -> bool:
        return await self._builds.join(index_id, lambda: self._build(index_id))

    async def _build(self, index_id: int) -> bool:
        names, token = self._keys_of(index_id), new_token()
        take = Call(_TAKE, names, (token, self._calls.settings.lease_ms, _WHATEVER_IS_THERE))
        if await self._calls.ask(take) != 1:
            return False
        try:
            members = await self.load(index_id)
        except BaseException:
            await self._calls.ask(Call(_RELEASE, names[1:], (token,)))
            raise
        words: list[Word] = [_BELOW_ALL, _NOBODY] if self._is_sorted else [_NOBODY]
        for member in members:
            words += (member.score, member.id) if self._is_sorted else (member.id,)
        args = (token, self._ttl_ms, int(self._is_sorted), *words)
        return bool(await self._calls.ask(Call(_FILL, names, args)) == 1)


# Which shops of a type are near ------------------------------------------------------------------

_NEAR = script("geo_near")
_BEGIN = script("geo_begin")
_ADD = script("geo_add")
_FILL_GEO = script("geo_fill")
_DROP = script("geo_drop")
_BEGUN, _THERE = 1, 2  # what geo_begin.lua replies
_CHUNK = 1_000
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
        self._builds = _Builds(cache)
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
        token, settings, index = new_token(), self._settings, keys.shop_geo(type_id)
        lock, built = keys.shop_geo_lock(type_id), keys.shop_geo_build(type_id, token)
        args = (token, settings.geo_lease_ms, _NOBODY, int(anew))
        begun = await self._cache.ask(Call(_BEGIN, (lock, built, index), args))
        if begun != _BEGUN:
            return bool(begun == _THERE)
        self.builds += 1
        async for words in self._places(type_id):
            if not await self._is_done(_ADD, (lock, built), token, *words):
                return False
        return await self._is_done(_FILL_GEO, (lock, built, index), token, settings.geo_ttl_s)

    async def _built(self, type_id: int) -> bool:
        return await self._builds.join(type_id, lambda: self.build(type_id, anew=False))

    async def _is_done(self, what: Any, names: tuple[str, ...], *args: str | int) -> bool:
        return bool(await self._cache.ask(Call(what, names, args)) == 1)

    async def _search(self, type_id: int, x: float, y: float, most: int) -> list[Nearby] | None:
        """The nearest up to `most`; None where there is no index."""
        args = (str(x), str(y), self._settings.radius_m, most + 1)
        found = await self._cache.ask(Call(_NEAR, (keys.shop_geo(type_id),), args))
        if found is None:
            return None
        shops = (Nearby(int(member), float(metres)) for member, metres in found)
        near = [place for place in shops if place.shop_id != _NOBODY]
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

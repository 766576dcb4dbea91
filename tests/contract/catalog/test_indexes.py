"""Geo indexes: absent is not empty, one builder at a time, and no index older than a change."""

import asyncio
import json
import math
from typing import Any

import pytest
from rig.shops import Open, ShopStores, ids

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.catalog.indexes import ShopGeo
from flashsale.catalog.json import NewShop, ShopChange, read
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio

HERE = (120.0, 30.0)


def metres(x1: float, y1: float, x2: float, y2: float) -> float:
    """Great-circle distance, as Redis documents it."""
    lat1, lat2 = math.radians(y1), math.radians(y2)
    across = math.sin(math.radians(x2 - x1) / 2)
    along = math.sin((lat2 - lat1) / 2)
    return (
        2
        * 6_372_797.560856
        * math.asin(math.sqrt(along**2 + math.cos(lat1) * math.cos(lat2) * across**2))
    )


async def test_the_nearest_come_first_with_their_distance(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front(radius_m=100_000) as front:
        pages = [await front.shops.near(1, number, *HERE) for number in (1, 2, 3, 4)]
        assert [ids(page) for page in pages] == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12], []]
        assert pages[0].source is Source.LOAD
        assert (await front.shops.near(1, 1, *HERE)).source is Source.HIT
        for shop in json.loads(pages[0].body):
            assert shop["distance"] == pytest.approx(metres(*HERE, shop["x"], shop["y"]), abs=1)
        assert front.geo.builds == 1


async def test_what_is_too_far_is_not_near(stored: ShopStores, open_front: Open) -> None:
    async with open_front(radius_m=5_000) as front:
        found = ids(await front.shops.near(1, 1, *HERE))
    assert found == [1, 2, 3, 4], "a hundredth of a degree is 1.1 km"


async def test_an_index_that_is_gone_is_made_anew(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        await front.shops.near(1, 1, *HERE)
        stored.cache.delete(keys.shop_geo(1))
        again = await front.shops.near(1, 1, *HERE)
        assert (ids(again), again.source) == ([1, 2, 3, 4, 5], Source.LOAD)


async def test_a_type_without_shops_has_an_index_too(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        pages = [await front.shops.near(3, 1, *HERE) for _ in range(5)]
        assert all(ids(page) == [] for page in pages)
        assert front.geo.builds == 1, "empty is not absent"
        assert ids(await front.shops.near(3, 1, 0.0, 0.0)) == [], "where the placeholder is"


async def test_an_index_heals_by_itself(stored: ShopStores, open_front: Open) -> None:
    async with open_front(geo_ttl_s=77) as front:
        await front.shops.near(1, 1, *HERE)
    assert 0 < stored.cache.ttl(keys.shop_geo(1)) <= 77
    assert sorted(stored.cache.scan_iter("*geo*")) == [keys.shop_geo(1)], "nothing else is left"


async def test_a_shop_that_moves_is_found_where_it_is(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        assert ids(await other.shops.near(1, 1, *HERE))[0] == 1
        await front.shops.change(read(ShopChange, {"id": 12, "y": 30.001}))
        assert ids(await other.shops.near(1, 1, *HERE))[0] == 12
        await front.shops.change(read(ShopChange, {"id": 12, "typeId": 3}))
        assert 12 not in ids(await other.shops.near(1, 1, *HERE))
        assert ids(await other.shops.near(3, 1, *HERE)) == [12]


async def test_a_change_of_name_leaves_the_index(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        await front.shops.near(1, 1, *HERE)
        await front.shops.change(read(ShopChange, {"id": 1, "name": "Renamed"}))
        page = await front.shops.near(1, 1, *HERE)
        assert json.loads(page.body)[0]["name"] == "Renamed"
        assert front.geo.builds == 1


async def test_many_who_miss_it_build_it_once(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        both = [f.shops.near(1, 1, *HERE) for _ in range(20) for f in (front, other)]
        pages = await asyncio.gather(*both)
        assert all(ids(page) == [1, 2, 3, 4, 5] for page in pages)
        assert front.geo.builds + other.geo.builds == 1


async def test_who_looked_too_early_does_not_build_it_again(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front, open_front() as other:
        assert await front.geo.build(1)
        assert await other.geo.build(1, anew=False), "it is there"
        assert other.geo.builds == 0
        assert await other.geo.build(1), "and warming makes it anew all the same"
        assert other.geo.builds == 1


async def test_no_index_is_older_than_a_change_beside_it(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder has read its rows; a shop is created; then the builder comes to fill."""
    async with open_front() as front, open_front() as other:
        has_read, go_on = asyncio.Event(), asyncio.Event()
        places = ShopGeo._places

        async def slow(self: ShopGeo, type_id: int) -> Any:
            async for words in places(self, type_id):
                yield words
            if self is front.geo and not has_read.is_set():
                has_read.set()
                await go_on.wait()

        monkeypatch.setattr(ShopGeo, "_places", slow)
        building = asyncio.create_task(front.shops.near(1, 1, *HERE))
        await has_read.wait()
        new = {"name": "Beside", "typeId": 1, "x": HERE[0], "y": HERE[1]}
        shop_id = await other.shops.create(read(NewShop, new))
        go_on.set()
        assert ids(await building)[0] == shop_id
        assert ids(await other.shops.near(1, 1, *HERE))[0] == shop_id


async def test_a_builder_that_dies_is_followed_by_the_next(
    stored: ShopStores, open_front: Open
) -> None:
    stored.cache.set(keys.shop_geo_lock(1), "a dead one", px=300)
    async with open_front() as front:
        page = await front.shops.near(1, 1, *HERE)
        assert ids(page) == [1, 2, 3, 4, 5]
        assert front.geo.builds == 1


async def test_a_builder_that_never_ends_does_not_hold_up_readers(
    stored: ShopStores, open_front: Open
) -> None:
    stored.cache.set(keys.shop_geo_lock(1), "a slow one")
    async with open_front() as front:
        assert ids(await front.shops.near(1, 1, *HERE)) == [1, 2, 3, 4, 5]
        assert front.geo.builds == 0


async def test_mysql_measures_as_redis_does(stored: ShopStores, open_front: Open) -> None:
    async with open_front(radius_m=8_000) as front:
        found, _ = await front.geo.near(1, 120.03, 30.03, range(1, 4))
        measured = await front.geo._measured(1, 120.03, 30.03, range(1, 4))
    assert [one.shop_id for one in found] == [one.shop_id for one in measured]
    for redis, mysql in zip(found, measured, strict=True):
        assert redis.metres == pytest.approx(mysql.metres, abs=1)


async def test_a_drop_that_is_owed_is_made_good(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_front() as front:
        await front.shops.near(1, 1, *HERE)
        ask = front.cache.ask

        async def away(call: object) -> object:
            raise Unavailable("away")

        monkeypatch.setattr(front.cache, "ask", away)
        await front.geo.forget(1)
        assert stored.cache.exists(keys.shop_geo(1))
        monkeypatch.setattr(front.cache, "ask", ask)
        keeping = asyncio.create_task(front.geo.keep())
        for _ in range(100):
            if not stored.cache.exists(keys.shop_geo(1)):
                break
            await asyncio.sleep(0.02)
        keeping.cancel()
        assert not stored.cache.exists(keys.shop_geo(1))


@pytest.mark.parametrize("place", [HERE, (180.0, 0.0), (-180.0, 85.0), (7.5, -85.0)])
@pytest.mark.parametrize("away", [False, True], ids=["cache", "mysql"])
async def test_shops_at_one_address_are_each_on_one_page(
    stored: ShopStores, open_front: Open, place: tuple[float, float], away: bool
) -> None:
    """Ties are ordered by id, however many are asked for, with the cache and without."""
    stored.sql("UPDATE tb_shop SET y = 60 WHERE type_id = 1")
    for shop_id in range(140, 99, -1):
        stored.add_shop(shop_id, type_id=3, x=place[0], y=place[1])
    nowhere = {"cache_url": "redis://127.0.0.1:1/0"} if away else {}
    async with open_front(**nowhere) as front:
        found = [
            shop_id
            for number in range(1, 10)
            for shop_id in ids(await front.shops.near(3, number, *place))
        ]
    assert found == list(range(100, 141))


async def test_ties_behind_nearer_shops_keep_their_order(
    stored: ShopStores, open_front: Open
) -> None:
    for shop_id in (207, 203, 205, 201, 206, 202, 204):
        stored.add_shop(shop_id, type_id=3, x=120.0, y=30.05)
    for shop_id in (302, 301, 303):
        stored.add_shop(shop_id, type_id=3, x=120.0, y=30.01)
    async with open_front() as front:
        pages = [ids(await front.shops.near(3, number, *HERE)) for number in (1, 2)]
    assert pages == [[301, 302, 303, 201, 202], [203, 204, 205, 206, 207]]

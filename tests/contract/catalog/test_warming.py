"""Warming: what is put into the cache, and that a cache that lost everything is warm again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rig.shops import Open, ShopStores

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.catalog.storefront import LOCK
from flashsale.locks.task import TaskLocks
from flashsale.settings import LockSettings

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def locks_on(cache_url: str, ledger_url: str) -> AsyncIterator[TaskLocks]:
    locks = TaskLocks(cache_url, ledger_url, LockSettings())
    try:
        yield locks
    finally:
        await locks.aclose()


async def test_everything_hot_is_there(stored: ShopStores, open_front: Open) -> None:
    async with open_front(hot_shops=3) as front:
        done = await front.warming.run()
        assert done == {"ids in filters": 26, "geo indexes": 3, "hot entries": 5}
        assert [(await front.shops.read(shop_id)).source for shop_id in (1, 2, 3, 4)] == [
            *[Source.HIT] * 3,
            Source.LOAD,
        ]
        assert await front.warming.is_marked()
    assert stored.cache.get(keys.CACHE_BOOT) == "d"
    assert set(stored.cache.scan_iter("shop:geo:*")) == {keys.shop_geo(n) for n in (1, 2, 3)}


async def test_twice_is_once(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.warming.run() == await front.warming.run()


async def test_a_cache_that_lost_everything_is_warmed_by_one(
    stored: ShopStores, open_front: Open, cache_url: str, ledger_url: str
) -> None:
    async with (
        open_front() as front,
        open_front() as other,
        locks_on(cache_url, ledger_url) as mine,
        locks_on(cache_url, ledger_url) as theirs,
    ):
        checks = [(front, mine), (other, theirs)]
        both = await asyncio.gather(*(one.warming.check(locks) for one, locks in checks))
        assert sorted(both) == [False, True]
        assert not await front.warming.check(mine)
        stored.cache.flushall()
        assert (await front.shops.read(99)).source is Source.LOAD, "nothing is denied meanwhile"
        assert await front.warming.check(mine)
        assert (await other.shops.read(1)).source is Source.HIT


async def test_what_another_warms_is_left_to_it(
    stored: ShopStores, open_front: Open, cache_url: str, ledger_url: str
) -> None:
    async with (
        open_front() as front,
        locks_on(cache_url, ledger_url) as mine,
        locks_on(cache_url, ledger_url) as theirs,
    ):
        async with theirs.lock(LOCK):
            assert not await front.warming.check(mine)
        assert not await front.warming.is_marked()


async def test_without_a_data_set_there_is_nothing_to_warm(
    stored: ShopStores, open_front: Open, cache_url: str, ledger_url: str
) -> None:
    stored.sql("DELETE FROM tb_dataset")
    async with open_front() as front, locks_on(cache_url, ledger_url) as locks:
        assert not await front.warming.check(locks)
    assert not stored.cache.exists(keys.CACHE_BOOT)


async def test_a_replica_keeps_at_it(
    stored: ShopStores, open_front: Open, cache_url: str, ledger_url: str
) -> None:
    async with open_front(warm_check_s=0.01) as front, locks_on(cache_url, ledger_url) as locks:
        duties = [asyncio.create_task(duty) for duty in front.duties(locks)]
        for _ in range(500):
            if stored.cache.exists(keys.CACHE_BOOT):
                break
            await asyncio.sleep(0.01)
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
    assert stored.cache.get(keys.CACHE_BOOT) == "d"

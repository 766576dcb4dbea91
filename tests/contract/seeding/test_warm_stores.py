"""Warming against real stores: each sale once, and never one that would sell units twice."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from flashsale import keys
from flashsale.cache.bloom import Shape
from flashsale.cache.client import CacheClient
from flashsale.catalog.storefront import LOCK
from flashsale.errors import UnreachableError, UsageError, ViolationError
from flashsale.locks.task import TaskLocks
from flashsale.seeding.settings import Silent
from flashsale.seeding.warm import WarmReport, warm
from flashsale.settings import BloomSettings, CacheSettings, LockSettings

if TYPE_CHECKING:
    from tests.contract.seeding.conftest import Lab

NOWHERE = "127.0.0.1:1"

LIVE_ORDER = (
    "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) "
    "VALUES (1, 1, {voucher}, '2030-01-01')"
)


def test_every_sale_is_loaded_once(lab: Lab) -> None:
    report = lab.seed(users=1, vouchers=3, units=10)
    assert lab.warm() == WarmReport(loaded=(1, 2, 3), already_loaded=())
    stocks = lab.ledger.mget([keys.seckill_stock(voucher) for voucher in (1, 2, 3)])
    assert stocks == ["4", "3", "3"]
    assert lab.ledger.hgetall(keys.seckill_sale(2)) | {"begin": "", "end": ""} == {
        "begin": "",
        "end": "",
        "state": "open",
        "initial": "3",
    }
    assert lab.cache.get(keys.CACHE_BOOT) == report.dataset_id
    lab.ledger.decr(keys.seckill_stock(1))
    lab.ledger.sadd(keys.seckill_order(1), "1")
    lab.ledger.hset(keys.seckill_receipt(1), "1", "101")
    assert lab.warm() == WarmReport(loaded=(), already_loaded=(1, 2, 3))
    assert lab.ledger.get(keys.seckill_stock(1)) == "3"


def test_a_later_voucher_is_added(lab: Lab) -> None:
    lab.seed(users=1)
    lab.warm()
    lab.seed(users=1, first_voucher=5)
    assert lab.warm() == WarmReport(loaded=(5,), already_loaded=(1,))


@pytest.mark.parametrize(
    "spoil",
    [LIVE_ORDER.format(voucher=2), "UPDATE tb_seckill_voucher SET stock = 1 WHERE voucher_id = 2"],
    ids=["live-order", "stock-below-initial"],
)
def test_a_sale_that_the_ledger_lost_is_refused_and_the_others_loaded(lab: Lab, spoil: str) -> None:
    lab.seed(users=1, vouchers=3, units=9)
    lab.sql(spoil)
    with pytest.raises(ViolationError, match=r"voucher 2 .*`flashsale rebuild --apply` does it$"):
        lab.warm()
    loaded = [lab.ledger.exists(keys.seckill_stock(voucher)) for voucher in (1, 2, 3)]
    assert loaded == [1, 0, 1]
    assert not lab.cache.exists(keys.CACHE_BOOT)


def test_several_lost_sales_make_one_line(lab: Lab) -> None:
    lab.seed(users=1, vouchers=3, units=9)
    lab.sql("UPDATE tb_seckill_voucher SET stock = 1")
    with pytest.raises(ViolationError, match=r"^voucher 1 .*\(and 2 more\)$"):
        lab.warm()


def test_a_loaded_sale_may_have_orders(lab: Lab) -> None:
    lab.seed(users=1)
    lab.warm()
    lab.sql(LIVE_ORDER.format(voucher=1))
    assert lab.warm().already_loaded == (1,)


def test_a_half_loaded_sale_is_refused(lab: Lab) -> None:
    lab.seed(users=1)
    lab.ledger.set(keys.seckill_stock(1), 100)
    with pytest.raises(ViolationError, match="keys in the ledger that disagree"):
        lab.warm()


def test_another_data_sets_sale_in_the_ledger_is_refused(lab: Lab) -> None:
    lab.seed(users=1)
    lab.warm()
    lab.ledger.hset(keys.seckill_sale(1), "end", "1")
    with pytest.raises(ViolationError, match="another begin or end than MySQL's"):
        lab.warm()


def test_nothing_to_load_is_said(lab: Lab, blank_mysql_url: str) -> None:
    with pytest.raises(UsageError, match="has no sale; run `flashsale seed` first"):
        lab.warm()
    lab.urls = lab.urls.model_copy(update={"mysql_url": blank_mysql_url})
    with pytest.raises(UsageError, match="no tables of ours; run `flashsale seed` first"):
        lab.warm()


def test_a_store_out_of_reach_is_named(lab: Lab) -> None:
    urls = lab.urls.model_copy(update={"cache_url": f"redis://{NOWHERE}/0"})
    with pytest.raises(UnreachableError, match=r"the cache at redis:.* does not answer"):
        warm(urls, Silent())


def test_the_lab_is_utc(lab: Lab) -> None:
    """The hours in the ledger are those of MySQL, to the millisecond."""
    lab.seed(users=1)
    lab.warm()
    with lab.pool.connect() as connection:
        begin = connection.execute(
            text("SELECT ROUND(UNIX_TIMESTAMP(begin_time) * 1000) FROM tb_seckill_voucher")
        ).scalar_one()
    assert lab.ledger.hget(keys.seckill_sale(1), "begin") == str(int(begin))


def test_a_rebuild_that_goes_on_beside_is_waited_for(lab: Lab) -> None:
    """A replica that warms holds the lock, and begins one rebuild of the filter after another."""
    lab.seed(users=1, shops=2)
    at_it, ended = threading.Event(), threading.Event()

    async def replica() -> None:
        locks = TaskLocks(lab.urls.cache_url, lab.urls.ledger_url, LockSettings())
        cache = CacheClient(lab.urls.cache_url, CacheSettings(), BloomSettings())
        shops, shape = cache.bloom("shop"), Shape.sized(1_000, 0.01)
        async with locks.lock(LOCK):
            at_it.set()
            give_up_s = time.monotonic() + 1
            while not ended.is_set() and time.monotonic() < give_up_s:
                await shops._begin("another", shape)
        await cache.aclose()
        await locks.aclose()

    with ThreadPoolExecutor(1) as threads:
        beside = threads.submit(asyncio.run, replica())
        assert at_it.wait(10)
        try:
            assert lab.warm().cached["ids in filters"] > 0
        finally:
            ended.set()
        beside.result(10)

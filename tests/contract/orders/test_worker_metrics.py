"""What the ledger tells of queue and sales, when all is well and when it is not."""

import time

import pytest
from redis import Redis
from rig.sale import claim, open_sale

from flashsale import keys
from flashsale.errors import Unavailable
from flashsale.model import Durability
from flashsale.orders.metrics import Patient, SaleUnits, look
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client


def deliver(ledger: Redis, count: int) -> None:
    ledger.xreadgroup(keys.GROUP, "c1", {keys.STREAM_ORDERS: ">"}, count=count)


def test_an_empty_ledger(ledger: Redis) -> None:
    figures = look(ledger)
    assert (figures.lag, figures.pending, figures.dead, figures.oldest_age_s) == (0, 0, 0, 0.0)
    assert (figures.oversold, figures.unaccounted, list(figures.sales)) == (0, 0, [])


def test_without_a_group_all_of_it_is_still_to_be_given_out(ledger: Redis) -> None:
    ledger.xadd(keys.STREAM_ORDERS, {"x": "1"})
    assert (look(ledger).lag, look(ledger).pending) == (1, 0)


def test_lag_pending_and_the_oldest(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    now_ms = int(time.time() * 1000)
    ledger.xadd(keys.STREAM_ORDERS, {"x": "1"}, id=f"{now_ms - 90_000}-0")
    ledger.xadd(keys.STREAM_ORDERS, {"x": "2"}, id=f"{now_ms - 30_000}-0")
    assert 89 < look(ledger).oldest_age_s < 120, "one that nobody was given"
    deliver(ledger, 1)
    figures = look(ledger)
    assert (figures.lag, figures.pending) == (1, 1)
    assert 89 < figures.oldest_age_s < 120, "one that is pending"
    ledger.xack(keys.STREAM_ORDERS, keys.GROUP, f"{now_ms - 90_000}-0")
    assert 29 < look(ledger).oldest_age_s < 60
    deliver(ledger, 1)
    ledger.xack(keys.STREAM_ORDERS, keys.GROUP, f"{now_ms - 30_000}-0")
    assert look(ledger).oldest_age_s == 0


def test_a_sale_that_adds_up(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    open_sale(ledger, 2, units=5)
    claim(ledger, (1, 101), (2, 102), (3, 103))
    figures = look(ledger)
    assert sorted(figures.sales, key=lambda sale: sale.offered) == [
        SaleUnits(5, 5, 0),
        SaleUnits(10, 7, 3),
    ]
    assert (figures.oversold, figures.unaccounted) == (0, 0)


def test_an_oversold_sale(ledger: Redis) -> None:
    open_sale(ledger, units=2)
    open_sale(ledger, 2, units=50)
    claim(ledger, (1, 101), (2, 102))
    ledger.sadd(keys.seckill_order(1), 3, 4, 5)
    figures = look(ledger)
    assert (figures.oversold, figures.unaccounted) == (3, 3), "the other sale does not make up"


@pytest.mark.parametrize("stock", [8, -3])
def test_units_that_nobody_accounts_for(ledger: Redis, stock: int) -> None:
    open_sale(ledger, units=10)
    ledger.set(keys.seckill_stock(1), stock)
    assert look(ledger).unaccounted == abs(10 - stock)
    assert look(ledger).oversold == 0


def test_more_sales_than_one_call_takes(ledger: Redis) -> None:
    for voucher in range(1, 251):
        open_sale(ledger, voucher, units=voucher)
    assert sum(sale.offered for sale in look(ledger).sales) == 250 * 251 / 2


def test_policy(ledger: Redis, own_ledger: RedisServer) -> None:
    assert set(look(ledger).policy.values()) == {True}
    with sync_client(own_ledger.url) as mine:
        mine.config_set("appendfsync", "everysec")
        mine.config_set("maxmemory-policy", "allkeys-lru")
        wrong = {name for name, holds in look(mine).policy.items() if not holds}
        assert wrong == {"appendfsync", "maxmemory-policy"}
        chosen = look(mine, Durability.EVERYSEC).policy
        assert {name for name, holds in chosen.items() if not holds} == {"maxmemory-policy"}


def test_an_answer_that_takes_too_long_is_none() -> None:
    slow = Patient(lambda: time.sleep(0.3) or 7, timeout_s=0.05)
    assert slow.answer() is None
    assert slow.answer() is None
    time.sleep(0.3)
    quick = Patient(lambda: 7, timeout_s=1)
    assert quick.answer() == 7


def test_trouble_is_no_answer() -> None:
    def fails() -> int:
        raise Unavailable("no")

    assert Patient(fails, timeout_s=1).answer() is None

"""Paying and cancelling on real stores: once, by its owner, and never before the claim is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.relay import Relay
from rig.rows import add_order, add_sale, order_row, units
from rig.sale import claim, open_sale, stock
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.model import PayStatus
from flashsale.orders.lifecycle import CLOCK_SLACK_MS, Lifecycle, OrderChange, Return, return_call
from flashsale.orders.lookup import OrderLookup
from flashsale.seckill.ids import LedgerClock
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, engine

pytestmark = pytest.mark.anyio

ORDER, USER = 70, 7


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@asynccontextmanager
async def lifecycle_on(
    ledger_url: str, mysql_url: str, *, claim_timeout_ms: int = 0, confirms: bool = False
) -> AsyncIterator[Lifecycle]:
    database = Database(engine(mysql_url), threads_max=8)
    channel = Channel(ledger_url, connections_max=4, timeout_s=0.5)

    async def read_time() -> tuple[int, int]:
        seconds, micros = await channel.ask("TIME")
        return int(seconds), int(micros)

    clock = LedgerClock(read_time)
    lookup = OrderLookup(database, channel)
    try:
        yield Lifecycle(database, channel, lookup, clock, claim_timeout_ms, confirms=confirms)
    finally:
        await channel.aclose()
        database.close()


@pytest.fixture
def order(ledger: Redis, pool: Engine) -> int:
    """An order of the user 7 in both stores; one unit of two is left."""
    open_sale(ledger, units=2)
    assert claim(ledger, (USER, ORDER)) == [(0, str(ORDER))]
    add_sale(pool, stock=1, initial=2)
    add_order(pool, order_id=ORDER, user_id=USER)
    return ORDER


def sql(pool: Engine, statement: str, **values: Any) -> Any:
    with pool.begin() as connection:
        return connection.execute(text(statement), values)


def owed(pool: Engine) -> int:
    return int(sql(pool, "SELECT COUNT(*) FROM tb_order_return").scalar())


def status(pool: Engine) -> int:
    return int(order_row(pool, ORDER).status)


async def test_paying_twice_is_paying_once(
    ledger_url: str, mysql_url: str, pool: Engine, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        assert await lifecycle.pay(order, USER) is OrderChange.DONE
        paid_at = order_row(pool, order).pay_time
        assert await lifecycle.pay(order, USER) is OrderChange.DONE
        assert order_row(pool, order).pay_time == paid_at
        assert await lifecycle.cancel(order, USER) is OrderChange.TOO_LATE
    assert status(pool) == PayStatus.PAID
    assert units(pool) == 1
    assert abs((datetime.now(UTC).replace(tzinfo=None) - paid_at).total_seconds()) < 60


async def test_cancelling_returns_the_unit_once_to_both_stores(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        changes = await asyncio.gather(*(lifecycle.cancel(order, USER) for _ in range(4)))
        assert changes == [OrderChange.DONE] * 4
    row = order_row(pool, order)
    assert (row.status, row.live) == (PayStatus.CANCELLED, None)
    assert (units(pool), stock(ledger)) == (2, 2)
    assert not ledger.exists(keys.seckill_order(1), keys.seckill_receipt(1))
    assert owed(pool) == 0


async def test_a_return_that_replicas_have_to_have_is_owed_until_they_are_asked(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url, confirms=True) as lifecycle:
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE
    assert (units(pool), stock(ledger), owed(pool)) == (2, 2, 1)


async def test_who_cancelled_may_buy_again(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        await lifecycle.cancel(order, USER)
        assert claim(ledger, (USER, 71)) == [(0, "71")]
        add_order(pool, order_id=71, user_id=USER)
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE
    assert ledger.hget(keys.seckill_receipt(1), str(USER)) == "71", "the new order stays"
    assert stock(ledger) == 1


async def test_a_payment_that_comes_too_late_is_refunded(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        await lifecycle.cancel(order, USER)
        assert await lifecycle.pay(order, USER) is OrderChange.REFUNDED
        assert await lifecycle.pay(order, USER) is OrderChange.REFUNDED
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE
    row = order_row(pool, order)
    assert (row.status, row.live) == (PayStatus.REFUNDED, None)
    assert row.refund_time is not None
    assert (units(pool), stock(ledger)) == (2, 2)


async def test_of_a_payment_and_a_cancellation_at_once_one_wins(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis
) -> None:
    open_sale(ledger, units=40)
    add_sale(pool, stock=20, initial=40)
    numbers = range(100, 120)
    assert all(code == 0 for code, _ in claim(ledger, *((n, n) for n in numbers)))
    for number in numbers:
        add_order(pool, order_id=number, user_id=number)
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        both = [
            asyncio.gather(lifecycle.pay(n, n), lifecycle.cancel(n, n))
            if n % 2
            else asyncio.gather(lifecycle.cancel(n, n), lifecycle.pay(n, n))
            for n in numbers
        ]
        seen = [set(pair) for pair in await asyncio.gather(*both)]
    assert all(
        pair in ({OrderChange.DONE, OrderChange.TOO_LATE}, {OrderChange.DONE, OrderChange.REFUNDED})
        for pair in seen
    )
    refunded = sum(OrderChange.REFUNDED in pair for pair in seen)
    assert (units(pool), stock(ledger)) == (20 + refunded, 20 + refunded)
    statuses = [order_row(pool, n).status for n in numbers]
    assert sorted(statuses) == [PayStatus.PAID] * (20 - refunded) + [PayStatus.REFUNDED] * refunded


async def test_nothing_is_cancelled_before_the_claim_is_over(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    """A replay of the claim under way would find the receipt gone, and sell the order again."""
    sql(pool, "UPDATE tb_voucher_order SET create_time = UTC_TIMESTAMP(3)")
    accepted = order_row(pool, order).create_time.replace(tzinfo=UTC).timestamp()
    async with lifecycle_on(ledger_url, mysql_url, claim_timeout_ms=300) as lifecycle:
        cancelling = asyncio.create_task(lifecycle.cancel(order, USER))
        await asyncio.sleep(0.1)
        assert status(pool) == PayStatus.UNPAID
        assert stock(ledger) == 1
        assert await cancelling is OrderChange.DONE
        assert time.time() >= accepted + (300 + CLOCK_SLACK_MS) / 1000 - 0.05
    assert stock(ledger) == 2


async def test_an_order_paid_while_its_cancellation_waits_stays_paid(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    sql(pool, "UPDATE tb_voucher_order SET create_time = UTC_TIMESTAMP(3)")
    async with lifecycle_on(ledger_url, mysql_url, claim_timeout_ms=1_500) as lifecycle:
        cancelling = asyncio.create_task(lifecycle.cancel(order, USER))
        await asyncio.sleep(0.05)
        assert await lifecycle.pay(order, USER) is OrderChange.DONE
        assert await cancelling is OrderChange.TOO_LATE
    assert (status(pool), stock(ledger), units(pool)) == (PayStatus.PAID, 1, 1)


async def test_another_users_order_does_not_exist(
    ledger_url: str, mysql_url: str, pool: Engine, order: int
) -> None:
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        for change in (lifecycle.pay, lifecycle.cancel):
            assert await change(order, USER + 1) is OrderChange.UNKNOWN
            assert await change(order + 1, USER) is OrderChange.UNKNOWN
    assert status(pool) == PayStatus.UNPAID


async def test_an_order_that_is_no_row_yet(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis
) -> None:
    open_sale(ledger)
    claim(ledger, (USER, ORDER), (8, 80))
    ledger.hset(keys.DEAD_ORDERS, "80", "short")
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        for change in (lifecycle.pay, lifecycle.cancel):
            assert await change(ORDER, USER) is OrderChange.QUEUED
            assert await change(80, 8) is OrderChange.FAILED
            assert await change(80, USER) is OrderChange.UNKNOWN
    assert stock(ledger) == 8


@pytest.mark.parametrize("old", [PayStatus.USED, PayStatus.REFUNDING])
async def test_what_has_moved_on_stays(
    ledger_url: str, mysql_url: str, pool: Engine, order: int, old: int
) -> None:
    sql(pool, "UPDATE tb_voucher_order SET status = :old", old=old)
    async with lifecycle_on(ledger_url, mysql_url) as lifecycle:
        assert await lifecycle.cancel(order, USER) is OrderChange.TOO_LATE
        paid = await lifecycle.pay(order, USER)
    assert paid is (OrderChange.DONE if old == PayStatus.USED else OrderChange.TOO_LATE)
    assert status(pool) == old


async def test_a_return_that_is_lost_is_owed_and_made_good(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis, order: int
) -> None:
    async with Relay(ledger_url) as relay, lifecycle_on(relay.url, mysql_url) as lifecycle:
        relay.refuse = True
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE, "MySQL has it"
        assert (owed(pool), stock(ledger), units(pool)) == (1, 1, 2)
        ledger.script_load(return_call(Return(order, USER, 1)).script.text)
        relay.refuse = False
        await lifecycle._ledger.ask("PING")  # connected: the next answer is the script's
        relay.cut_replies_after(0)
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE
        assert (owed(pool), stock(ledger)) == (1, 2), "executed, the answer lost: still owed"
        assert await lifecycle.cancel(order, USER) is OrderChange.DONE
        assert (owed(pool), stock(ledger)) == (0, 2), "never given back twice"

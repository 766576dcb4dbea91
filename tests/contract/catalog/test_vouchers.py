"""Vouchers on real stores: a sale that buyers see whole or not at all."""

import asyncio
from typing import Any

import pytest
from rig.relay import Relay
from rig.sale import claim, stock
from rig.shops import Open, ShopStores

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.catalog import voucher as voucher_module
from flashsale.catalog.json import NewSale, NewVoucher, read
from flashsale.catalog.voucher import LISTED, UNLISTED
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.seckill.sale import SaleTerms, read_terms
from flashsale.storage.channel import Channel

pytestmark = pytest.mark.anyio

VOUCHER: dict[str, Any] = {"shopId": 1, "title": "Half price", "payValue": 500, "actualValue": 1000}
SALE = VOUCHER | {
    "stock": 3,
    "beginTime": "2020-01-01T00:00:00.500Z",
    "endTime": "2090-01-01T00:00:00+08:00",
}


async def test_an_ordinary_voucher_is_listed(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert (await front.vouchers.of_shop(1)).value == []
        voucher_id = await front.vouchers.create(
            read(NewVoucher, VOUCHER | {"type": 1, "status": 9})
        )
        [found] = (await front.vouchers.of_shop(1)).value or []
        assert found.pop("createTime")
        assert found.pop("updateTime")
        assert found == VOUCHER | {"id": voucher_id, "type": 0, "status": LISTED}
        assert await front.vouchers.create(read(NewVoucher, VOUCHER | {"shopId": 99})) is None
    assert not stored.ledger.keys("seckill:*"), "nothing of it is sold in a sale"


async def test_a_sale_is_in_both_stores_listed_and_sells(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        await front.vouchers.of_shop(1)
        voucher_id = await front.vouchers.create_sale(read(NewSale, SALE))
        assert voucher_id is not None
        [found] = (await front.vouchers.of_shop(1)).value or []
    assert (found["id"], found["type"], found["stock"]) == (voucher_id, 1, 3)
    assert found["beginTime"] == "2020-01-01T00:00:00.500Z"
    assert found["endTime"] == "2089-12-31T16:00:00Z"
    [terms] = read_terms(stored.pool)
    assert stored.ledger.hgetall(keys.seckill_sale(voucher_id)) == {
        "begin": str(terms.begin_ms),
        "end": str(terms.end_ms),
        "state": "open",
        "initial": "3",
    }
    assert terms.begin_ms % 1000 == 500
    assert stored.ledger.smembers(keys.LOADED_SALES) == {str(voucher_id)}
    answers = claim(stored.ledger, (1, 11), (2, 12), (3, 13), (4, 14), voucher_id=voucher_id)
    assert [code for code, _ in answers] == [0, 0, 0, 1]


async def test_a_sale_for_no_shop(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.vouchers.create_sale(read(NewSale, SALE | {"shopId": 99})) is None
    assert stored.sql("SELECT COUNT(*) FROM tb_voucher") == [(0,)]
    assert not stored.ledger.keys("seckill:*")


async def test_nobody_sees_a_sale_that_is_not_loaded(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go_on = asyncio.Event(), asyncio.Event()
    open_sale = voucher_module.open_sale

    async def slow(ledger: Channel, terms: SaleTerms) -> None:
        loading.set()
        await go_on.wait()
        await open_sale(ledger, terms)

    monkeypatch.setattr(voucher_module, "open_sale", slow)
    async with open_front() as front:
        creating = asyncio.create_task(front.vouchers.create_sale(read(NewSale, SALE)))
        await loading.wait()
        [(voucher_id, status)] = stored.sql("SELECT id, status FROM tb_voucher")
        assert status == UNLISTED
        assert len(read_terms(stored.pool)) == 1, "an order could become a row"
        assert (await front.vouchers.of_shop(1)).value == []
        assert claim(stored.ledger, (1, 11), voucher_id=voucher_id) == [(5, "")]
        creating.cancel()  # its caller has gone; it ends all the same
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        for _ in range(100):
            if (await front.vouchers.of_shop(1)).value:
                break
            await asyncio.sleep(0.02)
        assert claim(stored.ledger, (1, 11), voucher_id=voucher_id) == [(0, "11")]
        assert (await front.vouchers.of_shop(1)).value


async def test_without_the_ledger_no_sale_is_left(stored: ShopStores, open_front: Open) -> None:
    async with open_front(ledger_url="redis://127.0.0.1:1/0") as front:
        with pytest.raises(Unavailable):
            await front.vouchers.create_sale(read(NewSale, SALE))
        assert (await front.vouchers.of_shop(1)).value == []
    assert stored.sql("SELECT COUNT(*) FROM tb_voucher") == [(0,)]
    assert stored.sql("SELECT COUNT(*) FROM tb_seckill_voucher") == [(0,)]


async def test_a_lost_answer_is_asked_for_again(
    stored: ShopStores, open_front: Open, ledger_url: str
) -> None:
    stored.ledger.script_load(script("sale_load").text)
    async with Relay(ledger_url) as relay, open_front(ledger_url=relay.url) as front:
        await front.vouchers._ledger.ask("PING")  # connected: the next is the script's
        relay.cut_replies_after(0)
        voucher_id = await front.vouchers.create_sale(read(NewSale, SALE))
        assert relay.cuts == 1
        assert voucher_id is not None
        assert stock(stored.ledger, voucher_id) == 3
        assert len((await front.vouchers.of_shop(1)).value or []) == 1


async def test_a_sale_that_may_be_loaded_keeps_its_rows(
    stored: ShopStores, open_front: Open, ledger_url: str
) -> None:
    """Somebody may have bought: without the rows, the order could never become one."""
    stored.ledger.script_load(script("sale_load").text)
    async with Relay(ledger_url) as relay, open_front(ledger_url=relay.url) as front:
        await front.vouchers._ledger.ask("PING")
        relay.cut_replies_after(0, for_good=True)
        with pytest.raises(Indeterminate):
            await front.vouchers.create_sale(read(NewSale, SALE))
        assert (await front.vouchers.of_shop(1)).value == [], "nobody is shown it"
    assert stored.sql("SELECT status FROM tb_voucher") == [(UNLISTED,)]
    assert len(read_terms(stored.pool)) == 1


async def test_a_strangers_sale_in_the_ledger_is_not_taken_for_ours(
    stored: ShopStores, open_front: Open
) -> None:
    stored.sql(
        "INSERT INTO tb_voucher (id, shop_id, title, pay_value, actual_value) VALUES (5,1,'',1,1)"
    )
    stored.ledger.set(keys.seckill_stock(6), 1_000)
    stored.ledger.hset(keys.seckill_sale(6), mapping={"begin": 1, "end": 2, "state": "open"})
    async with open_front() as front:
        with pytest.raises(Unavailable, match="another sale of voucher 6"):
            await front.vouchers.create_sale(read(NewSale, SALE))
        assert await front.vouchers.create_sale(read(NewSale, SALE)) == 7
    assert stored.ledger.get(keys.seckill_stock(6)) == "1000"


async def test_shops_that_cannot_be_have_no_vouchers(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert [(await front.vouchers.of_shop(99)).source for _ in range(2)] == [
            Source.LOAD,
            Source.NULL,
        ]
        await front.warming.run()
        answer = await front.vouchers.of_shop(12_345)
        assert (answer.body, answer.source) == (None, Source.BLOOM)
        assert (await front.vouchers.of_shop(2)).body == b"[]", "none, of a shop that exists"

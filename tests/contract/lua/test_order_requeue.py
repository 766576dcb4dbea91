"""order_requeue.lua: an accepted order goes back on the stream, as long as its receipt says so."""

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import claim, everything, open_sale

from flashsale import keys
from flashsale.lua.scripts import script

REQUEUE = script("order_requeue")
NAMES = [keys.seckill_receipt(1), keys.DEAD_ORDERS, keys.STREAM_ORDERS]


def requeue(ledger: Redis, *orders: tuple[int, int, int]) -> int:
    words = [1, *(part for order in orders for part in order)]
    return int(ledger.eval(REQUEUE.text, len(NAMES), *NAMES, *words))


@pytest.fixture(autouse=True)
def _sold(ledger: Redis) -> None:
    open_sale(ledger)
    claim(ledger, (7, 1001), (8, 1002))
    ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)


def test_an_order_is_written_as_it_was_sold(ledger: Redis) -> None:
    assert requeue(ledger, (7, 1001, 555), (8, 1002, 556)) == 2
    entries: Any = ledger.xrange(keys.STREAM_ORDERS)
    assert [fields for _, fields in entries] == [
        {"userId": "7", "voucherId": "1", "id": "1001", "ms": "555"},
        {"userId": "8", "voucherId": "1", "id": "1002", "ms": "556"},
    ]


def test_only_what_a_receipt_names_and_nobody_set_aside(ledger: Redis) -> None:
    ledger.hset(keys.DEAD_ORDERS, "1002", "no stock")
    before = everything(ledger)
    assert requeue(ledger, (7, 1002, 1), (9, 1001, 1), (7, 2001, 1), (8, 1002, 1)) == 0
    assert everything(ledger) == before


@pytest.mark.parametrize("words", [[], [1], [1, 7], [1, 7, 1001], [1, 7, 1001, 5, 8]], ids=str)
def test_malformed_arguments_are_refused(ledger: Redis, words: list[int]) -> None:
    before = everything(ledger)
    with pytest.raises(ResponseError, match="REFUSED"):
        ledger.eval(REQUEUE.text, len(NAMES), *NAMES, *words)
    assert everything(ledger) == before


def test_a_thousand_at_a_time(ledger: Redis) -> None:
    orders = [(user, 5000 + user, 9) for user in range(1, 1002)]
    ledger.hset(keys.seckill_receipt(1), mapping={str(u): o for u, o, _ in orders})
    assert requeue(ledger, *orders[:1000]) == 1000
    with pytest.raises(ResponseError, match="REFUSED"):
        requeue(ledger, *orders)

"""order_return.lua: a unit comes back once, and only by the order that holds the receipt."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import claim, everything, open_sale, stock

from flashsale import keys
from flashsale.lua.scripts import REFUSED
from flashsale.orders.lifecycle import Return, return_call


def give_back(ledger: Redis, order_id: int, user_id: int) -> int:
    call = return_call(Return(order_id, user_id, 1))
    return int(ledger.eval(call.script.text, len(call.keys), *call.keys, *map(str, call.args)))  # type: ignore[arg-type]


def test_a_unit_comes_back_once_and_its_user_may_buy_again(ledger: Redis) -> None:
    open_sale(ledger, units=1)
    assert claim(ledger, (7, 70)) == [(0, "70")]
    assert claim(ledger, (8, 80)) == [(1, "")]
    assert [give_back(ledger, 70, 7) for _ in range(3)] == [1, 0, 0]
    assert stock(ledger) == 1
    assert not ledger.exists(keys.seckill_order(1), keys.seckill_receipt(1))
    assert claim(ledger, (7, 71)) == [(0, "71")]
    assert give_back(ledger, 70, 7) == 0, "the first order has nothing more to give back"
    assert stock(ledger) == 0


def test_who_holds_another_order_by_a_row_keeps_the_place(ledger: Redis) -> None:
    """Two orders of one user, of a receipt that was lost: the second goes, and its unit with it."""
    open_sale(ledger, units=5)
    claim(ledger, (7, 70))
    ledger.hdel(keys.seckill_receipt(1), "7")
    ledger.srem(keys.seckill_order(1), 7)
    ledger.hdel(keys.seckill_sale(1), "initial")  # else the script sees that a unit is missing
    claim(ledger, (7, 71))
    assert stock(ledger) == 3
    call = return_call(Return(71, 7, 1, other_id=70))
    for reply in (1, 0):
        args = map(str, call.args)
        assert ledger.eval(call.script.text, len(call.keys), *call.keys, *args) == reply
        assert stock(ledger) == 4
        assert ledger.hgetall(keys.seckill_receipt(1)) == {"7": "70"}
        assert ledger.smembers(keys.seckill_order(1)) == {"7"}


def test_another_users_order_returns_nothing(ledger: Redis) -> None:
    open_sale(ledger)
    claim(ledger, (7, 2**53 + 1))
    before = everything(ledger)
    assert give_back(ledger, 2**53 + 1, 8) == 0
    assert give_back(ledger, 2**53, 7) == 0, "ids are text: no two of them are one"
    assert everything(ledger) == before


@pytest.mark.parametrize("value", [None, "x", "1.5", ""])
def test_a_stock_that_is_none_refuses(ledger: Redis, value: str | None) -> None:
    open_sale(ledger)
    claim(ledger, (7, 70))
    ledger.delete(keys.seckill_stock(1))
    if value is not None:
        ledger.set(keys.seckill_stock(1), value)
    before = everything(ledger)
    with pytest.raises(ResponseError, match=REFUSED):
        give_back(ledger, 70, 7)
    assert everything(ledger) == before


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wrong_type_refuses(ledger: Redis, number: int) -> None:
    open_sale(ledger)
    claim(ledger, (7, 70))
    name = return_call(Return(70, 7, 1)).keys[number]
    ledger.delete(name)
    ledger.rpush(name, "x")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=REFUSED):
        give_back(ledger, 70, 7)
    assert everything(ledger) == before

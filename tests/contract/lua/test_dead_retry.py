"""dead_retry.lua: a dead letter's order is in one of two places, never in both or none."""

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import claim, everything, open_sale

from flashsale import keys
from flashsale.orders.dead_letters import retry_call
from flashsale.orders.stream import Order

ORDER = Order("5-0", 70, 7, 1, 1_700_000_000_000)
FIELDS = {"userId": "7", "voucherId": "1", "id": "70", "ms": "1700000000000"}


def retry(ledger: Redis, letter_id: str, order: Order = ORDER) -> Any:
    call = retry_call(letter_id, order)
    return ledger.eval(call.script.text, len(call.keys), *call.keys, *map(str, call.args))


@pytest.fixture
def letter(ledger: Redis) -> str:
    """A dead letter of an order that was sold."""
    open_sale(ledger)
    claim(ledger, (7, 70))
    ledger.delete(keys.STREAM_ORDERS)
    ledger.hset(keys.DEAD_ORDERS, "70", "short")
    return str(ledger.xadd(keys.STREAM_DEAD, {"entry": "5-0", "reason": "short", **FIELDS}))


def test_it_moves_once(ledger: Redis, letter: str) -> None:
    entry = retry(ledger, letter)
    assert ledger.xrange(keys.STREAM_ORDERS) == [(entry, FIELDS)], "with the time of its claim"
    assert ledger.xlen(keys.STREAM_DEAD) == 0
    assert not ledger.exists(keys.DEAD_ORDERS)
    before = everything(ledger)
    assert retry(ledger, letter) == ""
    assert everything(ledger) == before


@pytest.mark.parametrize("receipt", [None, "71"])
def test_what_was_given_back_is_not_written_again(
    ledger: Redis, letter: str, receipt: str | None
) -> None:
    ledger.hdel(keys.seckill_receipt(1), "7")
    if receipt:
        ledger.hset(keys.seckill_receipt(1), "7", receipt)
    before = everything(ledger)
    assert retry(ledger, letter) == "-"
    assert everything(ledger) == before


def test_a_stream_that_takes_no_more_keeps_the_letter(ledger: Redis, letter: str) -> None:
    ledger.xadd(keys.STREAM_ORDERS, {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        retry(ledger, letter)
    assert everything(ledger) == before

"""Which ledger keys a reset takes away."""

import pytest

from flashsale import keys

GONE = [
    keys.STREAM_ORDERS,
    keys.STREAM_DEAD,
    keys.DEAD_ORDERS,
    keys.LOADED_SALES,
    keys.seckill_stock(1),
    keys.seckill_order(2**63 - 1),
    keys.seckill_receipt(1),
    keys.seckill_sale(1),
    keys.login_token("t"),
    keys.login_sessions(1),
    keys.login_code("13000000000"),
]
KEPT = [
    keys.LOCK_FENCE,
    keys.order_counter("2030:01:01"),
    keys.order_lock(1),
    keys.CACHE_BOOT,
    "somebody:else",
    "stream.orders.of.somebody.else",
]


@pytest.mark.parametrize("key", GONE)
def test_what_a_data_set_brought_goes(key: str) -> None:
    assert keys.belongs_to_data_set(key)


@pytest.mark.parametrize("key", KEPT)
def test_counters_and_what_is_not_ours_stay(key: str) -> None:
    assert not keys.belongs_to_data_set(key)

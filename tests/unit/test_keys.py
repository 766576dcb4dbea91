"""How keys are spelled, by layout: the family's on one server, by lanes on a cluster."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from flashsale import keys
from flashsale.accounts.sessions import draw_token
from flashsale.keys import CLUSTER, SINGLE, WHOLE, Lane

SLOTS = 16_384


def slot(key: str) -> int:
    return key_slot(key.encode())


def every_key(lane: Lane) -> list[str]:
    """One of each kind that a lane has."""
    return [
        *(lane.stream_orders, lane.stream_dead, lane.dead_orders, lane.lock_fence, lane.probe),
        *(lane.loaded_sales, lane.epoch, lane.permit, lane.closed, lane.seckill_stock(10)),
        *(lane.seckill_order(10), lane.seckill_receipt(10), lane.seckill_sale(10)),
        *(lane.seckill_idempotency(10), lane.login_token("t"), lane.login_sessions(7)),
        *(lane.login_code("13000000000"), lane.login_budget("phone", "13000000000")),
        *(lane.sign(7, "202601"), lane.order_counter("2026:01:01")),
    ]


def test_one_server_spells_as_the_family_does() -> None:
    assert every_key(WHOLE) == [
        *("stream.orders", "stream.orders.dead", "stream.orders.dead:ids", "lock:fence"),
        *("lock:probe", "seckill:sales", "seckill:epoch", "seckill:permit", "seckill:closed"),
        *("seckill:stock:10", "seckill:order:10", "seckill:receipt:10", "seckill:sale:10"),
        *("seckill:idempotency:10", "login:token:t", "login:sessions:7"),
        *("login:code:13000000000", "login:budget:phone:13000000000"),
        *("sign:7:202601", "icr:order:2026:01:01"),
    ]
    assert SINGLE.of(10) is SINGLE.of_user(7) is SINGLE.of_token("t") is SINGLE.home is WHOLE


@pytest.mark.parametrize("lane", CLUSTER.lanes)
def test_all_of_a_lane_is_in_one_slot_and_tells_its_lane(lane: Lane) -> None:
    spelled = every_key(lane)
    assert {slot(key) for key in spelled} == {slot(lane.hash_tag)}
    assert {CLUSTER.of_key(key) for key in spelled} == {lane}
    assert all(lane.has(key) for key in spelled)
    assert len(set(spelled)) == len(spelled)


def test_no_two_lanes_share_a_key() -> None:
    spelled = [key for lane in (WHOLE, *CLUSTER.lanes) for key in every_key(lane)]
    assert len(set(spelled)) == len(spelled)


@pytest.mark.parametrize("masters", [1, 2, 3, 6])
def test_lanes_are_even_over_masters_that_divide_the_slots_evenly(masters: int) -> None:
    places = [slot(lane.hash_tag) * masters // SLOTS for lane in CLUSTER.lanes]
    assert Counter(places) == dict.fromkeys(range(masters), len(CLUSTER.lanes) // masters)


def test_three_sales_in_a_row_are_on_three_masters() -> None:
    for first in range(1, 50):
        places = {slot(CLUSTER.of(v).hash_tag) * 3 // SLOTS for v in range(first, first + 3)}
        assert len(places) == 3


def test_a_clusters_keys_tell_whose_they_are_as_the_familys_do() -> None:
    for lane in (WHOLE, *CLUSTER.lanes):
        assert keys.voucher_of(lane.seckill_receipt(10)) == 10
        assert keys.user_of(lane.sign(7, "202601")) == keys.user_of(lane.login_sessions(7)) == 7
        assert keys.phone_of(lane.login_code("13000000000")) == 13_000_000_000
        assert keys.phone_of(lane.login_budget("phone", "13000000000")) == 13_000_000_000
        assert keys.is_session(lane.login_token("t"))
        assert keys.belongs_to_data_set(lane.stream_dead)
        assert keys.belongs_to_data_set(lane.seckill_stock(10))
        assert not keys.belongs_to_data_set(lane.order_counter("2026:01:01"))


@given(st.integers(1, 2**63 - 1))
def test_a_drawn_token_is_in_its_users_lane(user: int) -> None:
    for layout in (SINGLE, CLUSTER):
        assert layout.of_token(draw_token(layout, user)) is layout.of_user(user)


@given(st.integers(1, 2**63 - 1))
def test_a_voucher_is_sold_in_one_lane(voucher: int) -> None:
    assert [lane for lane in CLUSTER.lanes if lane.sells(voucher)] == [CLUSTER.of(voucher)]
    assert WHOLE.sells(voucher)

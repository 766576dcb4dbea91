"""dead_letter.lua: set aside and acknowledged together, once, or neither."""

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import everything

from flashsale import keys
from flashsale.lua.scripts import script

DEAD_LETTER = script("dead_letter")
NAMES = [keys.STREAM_ORDERS, keys.STREAM_DEAD, keys.DEAD_ORDERS]
FIELDS = ("userId", "7", "id", "1001")


def set_aside(ledger: Redis, entry_id: str, order_id: str = "1001", *fields: str) -> Any:
    args = [keys.GROUP, entry_id, order_id, "no stock", *(fields or FIELDS)]
    return ledger.eval(DEAD_LETTER.text, len(NAMES), *NAMES, *args)


@pytest.fixture
def entry_id(ledger: Redis) -> str:
    """An entry that was given to a consumer."""
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    entry_id = ledger.xadd(keys.STREAM_ORDERS, dict(zip(FIELDS[::2], FIELDS[1::2], strict=True)))
    ledger.xreadgroup(keys.GROUP, "c1", {keys.STREAM_ORDERS: ">"})
    return str(entry_id)


def test_set_aside(ledger: Redis, entry_id: str) -> None:
    assert set_aside(ledger, entry_id) == 1
    assert ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 0
    ((_, fields),) = ledger.xrange(keys.STREAM_DEAD)
    assert fields == {"entry": entry_id, "reason": "no stock", "userId": "7", "id": "1001"}
    assert ledger.hgetall(keys.DEAD_ORDERS) == {"1001": "no stock"}
    assert ledger.xlen(keys.STREAM_ORDERS) == 1, "the stream keeps what happened"


def test_once(ledger: Redis, entry_id: str) -> None:
    set_aside(ledger, entry_id)
    before = everything(ledger)
    assert set_aside(ledger, entry_id) == 0
    assert everything(ledger) == before


def test_what_is_not_pending_is_left_alone(ledger: Redis, entry_id: str) -> None:
    ledger.xack(keys.STREAM_ORDERS, keys.GROUP, entry_id)
    assert set_aside(ledger, entry_id) == 0
    assert set_aside(ledger, "1-1") == 0
    assert not ledger.exists(keys.STREAM_DEAD, keys.DEAD_ORDERS)


def test_without_an_order_id_there_is_no_reason_to_look_up(ledger: Redis, entry_id: str) -> None:
    assert set_aside(ledger, entry_id, "") == 1
    assert ledger.xlen(keys.STREAM_DEAD) == 1
    assert not ledger.exists(keys.DEAD_ORDERS)


def test_without_fields(ledger: Redis, entry_id: str) -> None:
    """An entry that was deleted while it was pending has none left."""
    args = [keys.GROUP, entry_id, "", "gone"]
    assert ledger.eval(DEAD_LETTER.text, len(NAMES), *NAMES, *args) == 1
    ((_, fields),) = ledger.xrange(keys.STREAM_DEAD)
    assert fields == {"entry": entry_id, "reason": "gone"}


@pytest.mark.parametrize("place", [1, 2], ids=["dead letters", "reasons"])
def test_where_it_cannot_be_set_aside_it_stays_pending(
    ledger: Redis, entry_id: str, place: int
) -> None:
    """An acknowledged entry without its dead letter would be an order lost in silence."""
    ledger.rpush(NAMES[place], "not what it should be")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        set_aside(ledger, entry_id)
    assert everything(ledger) == before
    assert ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 1


def test_dead_letters_that_take_no_more_leave_it_pending(ledger: Redis, entry_id: str) -> None:
    """The letter is written before the entry is acknowledged."""
    ledger.xadd(keys.STREAM_DEAD, {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        set_aside(ledger, entry_id)
    assert everything(ledger) == before
    assert ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 1


def test_without_its_group_nothing_is_pending(ledger: Redis, entry_id: str) -> None:
    ledger.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP)
    assert set_aside(ledger, entry_id) == 0
    assert not ledger.exists(keys.STREAM_DEAD)


def test_half_a_field_leaves_it_pending(ledger: Redis, entry_id: str) -> None:
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        set_aside(ledger, entry_id, "1001", "userId")
    assert everything(ledger) == before


def test_no_group_is_said(ledger: Redis) -> None:
    assert set_aside(ledger, "1-1") == 0
    assert everything(ledger) == {}

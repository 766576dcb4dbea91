"""sale_load.lua: a sale is created once and whole, or not at all."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import claim, everything

from flashsale import keys
from flashsale.lua.scripts import script

LOAD = script("sale_load")
CREATED, ALREADY, TORN = 1, 0, -1
NAMES = [
    keys.seckill_stock(1),
    keys.seckill_sale(1),
    keys.seckill_order(1),
    keys.seckill_receipt(1),
    keys.LOADED_SALES,
]
TERMS = ("1", "100", "1000", "9000000000000", "0", "open")


def load(ledger: Redis, *terms: str) -> int:
    return int(ledger.eval(LOAD.text, len(NAMES), *NAMES, *(terms or TERMS)))  # type: ignore[arg-type]


def test_creates_stock_and_terms(ledger: Redis) -> None:
    assert load(ledger) == CREATED
    assert ledger.get(keys.seckill_stock(1)) == "100"
    assert ledger.hgetall(keys.seckill_sale(1)) == {
        "begin": "1000",
        "end": "9000000000000",
        "state": "open",
        "initial": "100",
    }
    assert ledger.smembers(keys.LOADED_SALES) == {"1"}
    assert claim(ledger, (7, 1001)) == [(0, "1001")], "and seckill.lua sells it"


def test_a_loaded_sale_is_left_as_it_is(ledger: Redis) -> None:
    load(ledger)
    claim(ledger, (7, 1001))
    ledger.hset(keys.seckill_sale(1), "state", "paused")
    before = everything(ledger)
    assert load(ledger, "1", "500", "1", "2", "0", "open") == ALREADY
    assert everything(ledger) == before


def test_a_sale_stands_as_the_journal_says(ledger: Redis) -> None:
    assert load(ledger, "1", "100", "1000", "9000000000000", "17", "paused") == CREATED
    found = ledger.hmget(keys.seckill_sale(1), "state", "change", "refused")
    assert found == ["paused", "17", "0"]


def test_loading_again_mends_the_list_of_sales(ledger: Redis) -> None:
    load(ledger)
    ledger.delete(keys.LOADED_SALES)
    assert load(ledger) == ALREADY
    assert ledger.smembers(keys.LOADED_SALES) == {"1"}


@pytest.mark.parametrize("lost", [0, 1], ids=["stock", "sale"])
def test_half_a_sale_is_refused(ledger: Redis, lost: int) -> None:
    load(ledger)
    ledger.delete(NAMES[lost])
    before = everything(ledger)
    assert load(ledger) == TORN
    assert everything(ledger) == before


@pytest.mark.parametrize("lost", [0, 2, 3], ids=["stock", "orders", "receipts"])
def test_a_sale_whose_keys_disagree_is_refused(ledger: Redis, lost: int) -> None:
    load(ledger)
    claim(ledger, (7, 1001))
    ledger.delete(NAMES[lost])
    ledger.setnx(NAMES[0], "100")
    before = everything(ledger)
    assert load(ledger) == TORN
    assert everything(ledger) == before


@pytest.mark.parametrize("left", [2, 3], ids=["orders", "receipts"])
def test_orders_without_a_sale_are_refused(ledger: Redis, left: int) -> None:
    """Starting from MySQL's stock beside the receipts of an earlier sale would undersell."""
    load(ledger)
    claim(ledger, (7, 1001))
    for lost in {0, 1, 5 - left}:
        ledger.delete(NAMES[lost])
    before = everything(ledger)
    assert load(ledger) == TORN
    assert everything(ledger) == before


@pytest.mark.parametrize("place", range(5), ids=["stock", "sale", "order", "receipt", "sales"])
def test_a_key_of_a_wrong_type_leaves_everything_untouched(ledger: Redis, place: int) -> None:
    ledger.rpush(NAMES[place], "x")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        load(ledger)
    assert everything(ledger) == before


@pytest.mark.parametrize(
    "terms",
    [
        ("1", "-1", "1000", "2000", "0", "open"),
        ("1", "ten", "1000", "2000", "0", "open"),
        ("1", "1.5", "1000", "2000", "0", "open"),
        ("1", "007", "1000", "2000", "0", "open"),
        ("1", "10", "soon", "2000", "0", "open"),
        ("1", "10", "1000", "", "0", "open"),
        ("1", "10", "1000", "2000", "-1", "open"),
        ("1", "10", "1000", "2000", "0", "ajar"),
        ("1", "10", "1000", "2000", "0"),
        ("1", "10", "1000", "2000", "0", "open", "more"),
    ],
    ids=str,
)
def test_terms_that_cannot_be_sold_by_are_refused(ledger: Redis, terms: tuple[str, ...]) -> None:
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        load(ledger, *terms)
    assert everything(ledger) == {}

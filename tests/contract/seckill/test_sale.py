"""Loading a sale from MySQL's terms: once, and never against orders that exist."""

from datetime import UTC, datetime

import pytest
from redis import Redis
from rig.rows import add_order, add_sale
from rig.sale import claim, everything
from sqlalchemy import Engine

from flashsale import keys
from flashsale.errors import Unavailable, UnreachableError, ViolationError
from flashsale.seckill.sale import SaleTerms, load_sale, read_terms
from flashsale.storage.mysql import engine
from flashsale.storage.roles import sync_client

TERMS = SaleTerms(1, stock=100, initial=100, begin_ms=1000, end_ms=2**52, live_orders=0)


def test_terms_are_what_mysql_has(pool: Engine) -> None:
    add_sale(
        pool, 2, stock=7, initial=9, begin="2026-01-01 00:00:00.250", end="2026-12-31 23:59:59.999"
    )
    add_sale(pool, 1, stock=5)
    for status, user in ((1, 11), (2, 12), (3, 13), (4, 14), (5, 15), (6, 16)):
        add_order(pool, order_id=user, user_id=user, voucher_id=2, status=status)
    one, two = read_terms(pool)
    assert (one.voucher_id, one.stock, one.initial, one.live_orders) == (1, 5, 5, 0)
    assert one.is_untouched
    begin = datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    end = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert two == SaleTerms(
        2, 7, 9, round(begin.timestamp() * 1000), round(end.timestamp() * 1000), live_orders=4
    )
    assert not two.is_untouched


def test_terms_without_mysql_are_unavailable() -> None:
    nowhere = engine("mysql://u:p@127.0.0.1:1/d")
    with pytest.raises(Unavailable):
        read_terms(nowhere)
    nowhere.dispose()


def test_a_sale_is_loaded_once(ledger: Redis) -> None:
    assert load_sale(ledger, TERMS) is True
    claim(ledger, (7, 1001))
    before = everything(ledger)
    assert load_sale(ledger, TERMS) is False
    assert everything(ledger) == before


def test_a_sale_that_runs_is_not_loaded_again_from_mysqls_stock(ledger: Redis) -> None:
    load_sale(ledger, TERMS)
    claim(ledger, (7, 1001))
    before = everything(ledger)
    sold_since = SaleTerms(1, stock=99, initial=100, begin_ms=1000, end_ms=2**52, live_orders=1)
    assert load_sale(ledger, sold_since) is False
    assert everything(ledger) == before


@pytest.mark.parametrize(
    "touched",
    [
        SaleTerms(1, stock=99, initial=100, begin_ms=1, end_ms=2, live_orders=1),
        SaleTerms(1, stock=99, initial=100, begin_ms=1, end_ms=2, live_orders=0),
        SaleTerms(1, stock=100, initial=100, begin_ms=1, end_ms=2, live_orders=1),
    ],
)
def test_a_ledger_that_lost_a_touched_sale_is_refused(ledger: Redis, touched: SaleTerms) -> None:
    with pytest.raises(ViolationError, match=r"voucher 1 .*`flashsale rebuild --apply`"):
        load_sale(ledger, touched)
    assert everything(ledger) == {}


@pytest.mark.parametrize("lost", [keys.seckill_stock(1), keys.seckill_sale(1)])
def test_a_half_lost_sale_is_refused(ledger: Redis, lost: str) -> None:
    load_sale(ledger, TERMS)
    ledger.delete(lost)
    before = everything(ledger)
    with pytest.raises(ViolationError, match="keys in the ledger that disagree"):
        load_sale(ledger, TERMS)
    assert everything(ledger) == before


def test_a_ledger_that_refuses_is_unreachable(ledger: Redis) -> None:
    ledger.rpush(keys.LOADED_SALES, "x")
    with pytest.raises(UnreachableError, match="refused to load a sale"):
        load_sale(ledger, TERMS)
    assert list(everything(ledger)) == [keys.LOADED_SALES]


def test_a_ledger_that_is_away_is_unreachable() -> None:
    with sync_client("redis://127.0.0.1:1/0") as nowhere, pytest.raises(UnreachableError):
        load_sale(nowhere, TERMS)

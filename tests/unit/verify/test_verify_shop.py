"""What a shop's tables may say: ids, truths and instants in any spelling; and when rows rest."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from flashsale.books import Books
from flashsale.verify.shop_redis import Rest
from flashsale.verify.shop_tables import UnfitError, _order, instant_ms
from flashsale.verify.stores import NO_TIME

SELECT = "SELECT 1 AS user, 1 AS voucher"


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        (Decimal("1700000000.25"), 1_700_000_000_250),
        ("1700000000123", 1_700_000_000_123),
        (datetime(2024, 1, 1, 8), 1_704_067_200_000),
        (datetime(2024, 1, 1, tzinfo=UTC), 1_704_067_200_000),
        ("2024-01-01T00:00:00Z", 1_704_067_200_000),
        ("2024-01-01 08:00:00.5", 1_704_067_200_500),
        ("soon", NO_TIME),
        (None, NO_TIME),
        (True, NO_TIME),
        (float("nan"), NO_TIME),
    ],
)
def test_an_instant_in_any_form(value: Any, ms: int) -> None:
    assert instant_ms(value, timezone(timedelta(hours=8))) == ms


@pytest.mark.parametrize(
    ("live", "truth"),
    [(True, True), (0, False), ("f", False), ("Yes", True), (b"\x01", True), (b"\0", False)],
)
def test_a_truth_in_any_spelling(live: Any, truth: bool) -> None:
    row = {"user": b"a", "voucher": 7.0, "live": live, "quantity": "2", "id": b"\x01" * 16}
    order = _order(row, UTC, set())
    assert (order.live, order.user, order.voucher, order.quantity) == (truth, "a", "7", 2)
    assert order.id == "01" * 16


@pytest.mark.parametrize("row", [{"user": 1}, {"user": 1, "voucher": 1, "quantity": 0.5}])
def test_what_is_no_order_is_told(row: dict[str, Any]) -> None:
    with pytest.raises(UnfitError):
        _order(row, UTC, set())


@pytest.mark.parametrize(
    ("books", "said"),
    [
        ({}, "books.orders: missing"),
        ({"orders": "DELETE FROM orders"}, "books.orders: expected a SELECT"),
        ({"orders": SELECT, "url": "ftp://x"}, "books.url: found 'ftp'"),
        (
            {"orders": SELECT, "url": "mysql://u:p@h/d"},
            "put the whole URL into FLASHSALE_BOOKS_URL",
        ),
        ({"orders": SELECT, "time_is": "stream"}, "'stream' needs books.redis.stream"),
        ({"orders": "orders", "route": "/books"}, "expected a pointer"),
        ({"orders": SELECT, "names": {"buyer": "x"}}, "books.names: found 'buyer'"),
        ({"orders": SELECT, "redis": {"stock": "units"}}, "expected {voucher} in it"),
        ({"orders": SELECT, "redis": {"stream": "s", "list": "l"}}, "leave one of them out"),
        ({"orders": SELECT, "redis": {"fields": {"sku": "x"}}}, "found 'sku', expected id, user"),
    ],
)
def test_books_that_cannot_be_are_refused(books: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Books.model_validate(books)
    assert said in str(error.value)


def test_rows_rest_when_nothing_was_added_for_so_long() -> None:
    rest = Rest(2.0)
    counts = [(5, 0.0), (5, 1.0), (6, 1.5), (6, 3.0)]
    assert not any(rest.is_over(count, now) for count, now in counts)
    assert rest.is_over(6, 3.5)

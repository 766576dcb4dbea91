"""What a shop's tables may say: ids, truths and instants in any spelling; and when rows rest."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from flashsale.books import Books
from flashsale.model import id_of
from flashsale.verify.shop_redis import Rest
from flashsale.verify.shop_rows import RowReader, UnfitError, instant_ms
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
        (1_700_000_000_123_456, 1_700_000_000_123),  # µs
        (1_700_000_000_123_456_789, 1_700_000_000_123),  # ns
        (1_700_000_000.25, 1_700_000_000_250),
        ("1700000000.25", 1_700_000_000_250),
        ("2024-01-01T00:00:00.123456789Z", 1_704_067_200_123),
        ("20240101080000", 1_704_067_200_000),
        (20240101080000, 1_704_067_200_000),
        ("2024-01-01T00:00:00+0800", 1_704_038_400_000),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 1_704_067_200_000),
        ("Mon, 01 Jan 2024 08:00:00 +0800", 1_704_067_200_000),
        ("2024-01-01 08:00:00 +08:00", 1_704_067_200_000),
        ("2024-01-01 00:00:00 UTC", 1_704_067_200_000),
        ("2024-01-01 00:00:00.123456789 +0000 UTC", 1_704_067_200_123),
        ([2024, 1, 1, 8, 0], 1_704_067_200_000),
        ([2024, 1, 1, 8, 0, 0, 123_456_789], 1_704_067_200_123),
        (0, 0),
        (None, NO_TIME),
        ("", NO_TIME),
        ("0000-00-00 00:00:00", NO_TIME),
    ],
)
def test_an_instant_in_any_form(value: Any, ms: int) -> None:
    assert instant_ms(value, timezone(timedelta(hours=8))) == ms


@pytest.mark.parametrize(
    "value",
    [
        *("soon", "01/02/2024 10:00", True, float("nan"), "Infinity", 10**30, date(2024, 1, 1)),
        *([1], [2024, 13, 1, 0, 0], "UTC", "Mon, 40 Jan 2024 00:00:00 GMT"),
    ],
    ids=str,
)
def test_what_is_no_instant_is_told(value: Any) -> None:
    with pytest.raises(UnfitError, match=r"closes: found .*expected such as '2026-"):
        instant_ms(value, UTC, "closes")


def reader(sold: Sequence[int] = (7,), **books: Any) -> RowReader:
    return RowReader(Books.model_validate({"orders": SELECT, **books}), sold)


BY_ROUTE = {"route": "/books", "orders": "/orders", "stock": "/stock"}


@pytest.mark.parametrize(
    ("live", "truth"),
    [
        *((True, True), (0, False), ("f", False), ("Yes", True), (b"\x01", True), (b"\0", False)),
        *((1.0, True), (Decimal("0"), False)),
    ],
)
def test_a_truth_in_any_spelling(live: Any, truth: bool) -> None:
    row = {"user": b"a", "voucher": 7.0, "live": live, "quantity": "2", "id": b"\x01" * 16}
    order = reader().order(row)
    assert (order.live, order.user, order.voucher, order.quantity) == (truth, "a", "7", 2)
    assert order.id == str(UUID(bytes=b"\x01" * 16))


@pytest.mark.parametrize("live", ["cancelled", "PAID", None, 4, datetime(2024, 1, 1)], ids=str)
def test_a_state_is_no_truth(live: Any) -> None:
    with pytest.raises(UnfitError, match=r"live: found .*expected a truth, such as"):
        reader().order({"user": 1, "live": live})


@pytest.mark.parametrize(
    ("live_is", "live", "truth"),
    [
        (["new", "PAID"], "Paid", True),
        (["new", "PAID"], "refunded", False),
        ([""], None, True),
        ([""], "2024-01-01", False),
        ([1, 2], Decimal("2.0"), True),
        ("new", "new", True),
        ([False], False, True),
    ],
)
def test_states_that_are_live(live_is: Any, live: Any, truth: bool) -> None:
    assert reader(live_is=live_is).order({"user": 1, "live": live}).live is truth


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"voucher": 1}, r"without 'user' \(it has voucher\); name it in the query"),
        ({"user": None}, "'user' is NULL; leave it out"),
        ({"user": 1, "voucher": None}, "'voucher' is NULL"),
        ({"user": 1, "id": 2.0261130163738e19}, r"id: found 2.0261130163738e\+19, a number"),
        ({"user": 2.0**53}, "user: found 9007199254740992.0, a number that was rounded"),
        ({"user": 1, "quantity": 0.5}, "quantity: found '0.5', expected a whole number"),
        ({"user": 1, "quantity": None}, "quantity: found NULL"),
        ({"user": 1, "quantity": "two"}, "quantity: found 'two'"),
        ({"user": 1, "quantity": float("inf")}, "quantity: found 'inf'"),
        ({"user": 1, "quantity": 10**30}, "expected a whole number"),
        ({"user": {"id": 1}}, "user: found {'id': 1}, expected text or a number"),
    ],
    ids=str,
)
def test_what_is_no_order_is_told(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitError, match=said):
        reader().order(row)


def test_bytes_are_a_uuid_or_text() -> None:
    text = [reader().order({"user": raw}).user for raw in (bytes(range(16)), b"V1StGXR8_Z5jdHi6")]
    assert text == ["00010203-0405-0607-0809-0a0b0c0d0e0f", "V1StGXR8_Z5jdHi6"]


@pytest.mark.parametrize("quantity", [2, 2.0, "2", "2.00", Decimal("2.000")])
def test_a_whole_number_in_any_form(quantity: Any) -> None:
    assert reader().order({"user": 1, "quantity": quantity}).quantity == 2


def test_a_row_that_names_no_voucher_is_of_the_only_one() -> None:
    assert reader([3]).order({"user": "a "}) == (None, "a", "3", 1, True, NO_TIME)
    assert reader([2], vouchers=["a", "b"]).stock({"stock": 1}).voucher == "b"
    with pytest.raises(UnfitError, match="without 'voucher'"):
        reader([3, 4]).order({"user": 1})


def test_what_a_route_calls_them_and_what_lies_deeper() -> None:
    names = {"user": "/buyer/id", "voucher": "/lines/0/sku", "id": "no", "live": "/paid"}
    found = reader(**BY_ROUTE, names=names)
    row = {"no": "o-1", "id": 9, "buyer": {"id": 5}, "lines": [{"sku": "x"}], "quantity": 2}
    assert found.order({**row, "paid": True}) == ("o-1", "5", "x", 2, True, NO_TIME)
    assert found.columns == {"id", "buyer", "lines", "quantity", "user", "voucher", "paid", "live"}
    with pytest.raises(UnfitError, match=r"say what the route calls it: names = { user ="):
        found.order({"no": 1, "lines": [{"sku": "x"}]})


def test_a_query_can_have_names_of_its_own() -> None:
    found = reader(names={"user": "buyer_id", "id": "/told/no"})
    found.ensure("orders", ["told", "id", "buyer_id"])
    assert found.columns == {"told", "user", "id"}
    assert found.order({"told": {"no": 5}, "id": 1, "buyer_id": 7}).id == "5"
    with pytest.raises(UnfitError, match="without 'user'"):
        found.ensure("orders", ["id", "user"])  # which is another's


@pytest.mark.parametrize(
    ("row", "stock", "initial"),
    [
        ({"initial": 10, "sold": 4}, 6, 10),
        ({"stock": 6, "sold": 4}, 6, 10),
        ({"stock": 6}, 6, None),
        ({"sold": 4}, None, None),
        ({"stock": 5, "initial": 10, "sold": 4}, 5, 10),
    ],
)
def test_stock_is_what_is_left_or_what_was_not_sold(
    row: dict[str, Any], stock: int | None, initial: int | None
) -> None:
    found = reader().stock(row)
    assert (found.stock, found.initial) == (stock, initial)


def test_a_stock_that_tells_nothing_of_one_is_told() -> None:
    with pytest.raises(
        UnfitError, match=r"a stock without 'stock' \(it has 1\); say what the route"
    ):
        reader(**BY_ROUTE).stock({"1": 4})


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
        ({"orders": SELECT, "redis": {"stream": "s", "list": "l"}}, "leave one of them out"),
        ({"orders": SELECT, "redis": {"stock": "s:{sku}"}}, "expected {voucher} or {user}"),
        ({"orders": SELECT, "redis": {"stock": "s:{user}"}}, "expected no {user} in it"),
        ({"orders": SELECT, "redis": {"stock_field": "n"}}, "this is for a hash"),
        ({"orders": SELECT, "vouchers": ["a", "a"]}, "stands there twice"),
        ({"orders": SELECT, "vouchers": ['a"']}, "expected an id"),
        ({"orders": SELECT, "stock_route": "/s"}, "this is for a shop with books.route"),
        ({"orders": SELECT, "headers": {"x": "y"}}, "this is for a shop with books.route"),
        ({"orders": "/o", "route": "/o", "stock_route": "s"}, "expected a path"),
        ({"orders": f"{SELECT} FROM o WHERE sku = {{voucher}}"}, "expected {vouchers} alone"),
        ({"orders": f"{SELECT} FROM o WHERE sku IN ('{{vouchers}}')"}, "in quotes or a comment"),
        ({"orders": SELECT, "stock": f"{SELECT}; DROP TABLE o"}, "found several statements"),
        ({"orders": f"{SELECT} FROM o FOR  update"}, "found 'FOR update', expected a SELECT that"),
        ({"orders": f"{SELECT} INTO OUTFILE '/tmp/x'"}, "found 'INTO OUTFILE'"),
        (
            {"orders": "WITH gone AS (DELETE FROM o RETURNING *) SELECT * FROM gone"},
            "found 'DELETE FROM'",
        ),
        ({"orders": "WITH x AS (SELECT 1) UPDATE o SET n = 1"}, "found 'UPDATE o'"),
        ({"orders": SELECT, "redis": {"fields": {"sku": "x"}}}, "found 'sku', expected id, user"),
    ],
)
def test_books_that_cannot_be_are_refused(books: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Books.model_validate(books)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "query",
    [
        f"{SELECT};",
        f"-- who bought\n({SELECT}) UNION (SELECT 2, 2)",
        "SELECT 'delete from x; ' AS user, \"into x\" AS voucher FROM `update` /* for update */",
        "SELECT deleted, replace(a, 'x', 'y') AS user, (update - 1) AS voucher FROM o",
    ],
)
def test_a_query_that_only_reads_is_taken(query: str) -> None:
    assert Books.model_validate({"orders": query}).orders == query


def test_what_books_ask_by_the_names_of_vouchers() -> None:
    query = "SELECT 1 AS user FROM o WHERE sku IN ({vouchers})"
    assert Books(orders=query).asking("orders", [3, 4]).endswith("IN (3, 4)")
    named = Books.model_validate({"orders": query, "vouchers": ["it's", 88]})
    assert named.asking("orders", [1, 2]).endswith("IN ('it''s', '88')")
    assert (named.name_of(2), named.number_of("88"), named.number_of("it's")) == ("88", 2, 1)
    assert named.number_of("2") > 2**61  # of another, though its number is ours
    route = Books(orders="/", stock="/left", route="/o/{vouchers}", stock_route="/s")
    assert route.asking("orders", [7]) == "/o/7#/"
    assert route.asking("stock", [7]) == "/s#/left"


def test_a_uuid_is_one_however_it_is_written() -> None:
    text = "6F9619FF-8B86-D011-B42D-00C04FC964FF"
    assert len({id_of(it) for it in (text, text.lower(), text.replace("-", ""))}) == 1
    assert id_of(text) != id_of(text[:-1] + "E")


@pytest.mark.parametrize(
    ("redis", "many", "said"),
    [
        ({"stock": "left"}, {"vouchers": 2}, "books.redis.stock: found 'left', expected {voucher}"),
        ({"holders": "had"}, {"vouchers": 1, "units_apart": True}, "books.orders: missing"),
        ({"holders": "had"}, {"vouchers": 1}, ""),
        ({"holders": "had:{voucher}:{user}"}, {"vouchers": 2}, ""),
    ],
)
def test_what_books_cannot_tell_apart(
    redis: dict[str, str], many: dict[str, Any], said: str
) -> None:
    orders = {} if "holders" in redis else {"orders": SELECT}
    trouble = Books.model_validate({**orders, "redis": redis}).trouble(**many)
    assert trouble.startswith(said)
    assert bool(trouble) is bool(said)


def test_rows_rest_when_nothing_was_added_for_so_long() -> None:
    rest = Rest(2.0)
    counts = [(5, 0.0), (5, 1.0), (6, 1.5), (6, 3.0)]
    assert not any(rest.is_over(count, now) for count, now in counts)
    assert rest.is_over(6, 3.5)


@pytest.mark.parametrize(
    "books",
    [
        {"live_is": ["PAID"]},
        {"names": {"live": "state"}},
        {"names": {"live": "/state/name"}, "live_is": ["PAID"]},
    ],
    ids=str,
)
def test_an_order_that_does_not_say_whether_it_is_live_is_told(books: dict[str, Any]) -> None:
    reading = reader(**books)
    with pytest.raises(UnfitError, match="an order without 'live' \\(it has user, status\\)"):
        reading.order({"user": 1, "status": "CANCELLED"})
    assert reader(**{**books, "live_is": ["PAID", ""]}).order({"user": 1}).live

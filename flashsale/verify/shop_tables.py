"""Orders and stock of a shop that is not ours, as its database or a route of its own tells them.

Everything is read in one snapshot that can write nothing. What is read is named by its column, and
is the shop's own: ids of any text, times in any form, a truth in any spelling.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pymysql

from flashsale.asking import ABSENT, UnansweredError, ask_once, at_pointer
from flashsale.books import Books
from flashsale.errors import NothingJudgedError, UnreachableError, UsageError
from flashsale.store_urls import mysql_arguments, open_mysql, read_mysql_url
from flashsale.verify.stores import NO_TIME, frozen_view

_ROWS_MAX = 5_000_000
_FETCH_ROWS = 10_000
_ROUTE_BYTES_MAX = 256 * 1024 * 1024
_ROUTE_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 3
_READ_TIMEOUT_S = 120
_MS_FROM = 100_000_000_000
"""A number from here on is milliseconds; below, seconds: of 1973, and of the year 5138."""
_FALSE = frozenset({"", "0", "f", "false", "n", "no", "off"})
_CURE = "name the shop's database with --books-url"


class Order(NamedTuple):
    """One row; `id` is None where the shop's orders have none, `at_ms` NO_TIME likewise."""

    id: str | None
    user: str
    voucher: str
    quantity: int
    live: bool
    at_ms: int


class Stock(NamedTuple):
    """What a shop says of a voucher; None for what it does not say."""

    voucher: str
    stock: int | None
    initial: int | None
    opens_ms: int | None
    closes_ms: int | None


@dataclass(frozen=True)
class Told:
    """All of it, as of one instant. `columns` are those that the orders have."""

    orders: Sequence[Order]
    stocks: Sequence[Stock]
    columns: frozenset[str]


Row = Mapping[str, Any]
Select = Callable[[str], Iterator[Row]]


def read_tables(
    books: Books, url: str, base_url: str, vouchers: Sequence[int], insecure: bool = False
) -> Told:
    """Orders and stocks. Raises UnreachableError where nobody answers, NothingJudgedError where
    what is told is not what the file says, UsageError for a URL that is none."""
    where = f"{base_url}{books.route}" if books.route else _shown(url)
    zone = timezone(timedelta(minutes=books.utc_offset_min))
    try:
        with _selecting(books, url, base_url) as select:
            columns: set[str] = set()
            orders = [
                _order(row, zone, columns)
                for row in _bounded(select(_for(books.orders, vouchers)), "orders")
            ]
            stocks = []
            if books.stock:
                found = _bounded(select(_for(books.stock, vouchers)), "stock")
                stocks = [_stock(row, zone) for row in found]
    except UnfitError as error:
        raise NothingJudgedError(f"[books] of {where}: {error}") from error
    return Told(orders, stocks, frozenset(columns))


def count_orders(books: Books, url: str, base_url: str, vouchers: Sequence[int]) -> int:
    """How many rows there are, of whatever state."""
    with _selecting(books, url, base_url) as select:
        return sum(1 for _ in _bounded(select(_for(books.orders, vouchers)), "orders"))


class UnfitError(Exception):
    """What was told cannot be taken for orders or stock; the message says why."""


def _for(query: str, vouchers: Sequence[int]) -> str:
    return query.replace("{vouchers}", ", ".join(map(str, vouchers)))


def _bounded(rows: Iterable[Row], what: str) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number == _ROWS_MAX:
            raise UnfitError(f"more than {_ROWS_MAX:,} {what}; ask with WHERE … IN ({{vouchers}})")
        yield row


@contextmanager
def _selecting(books: Books, url: str, base_url: str) -> Iterator[Select]:
    if books.route:
        yield _by_route(books, base_url)
        return
    if not url:
        raise UnreachableError(f"books.url: not given; {_CURE}, or FLASHSALE_BOOKS_URL")
    scheme = urlsplit(url).scheme
    opened = {"sqlite": _sqlite, "postgresql": _postgres, "postgres": _postgres}
    with opened.get(scheme, _mysql)(url) as select:
        yield select


def _shown(url: str) -> str:
    """A URL without its user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the database"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


# Databases ----------------------------------------------------------------------------------------


@contextmanager
def _mysql(url: str) -> Iterator[Select]:
    place = read_mysql_url(url, "--books-url")
    database = None
    try:
        arguments = mysql_arguments(place, read_timeout_s=_READ_TIMEOUT_S)
        database = open_mysql(**arguments, autocommit=True)

        def select(query: str) -> Iterator[Row]:
            with database.cursor() as cursor:
                cursor.execute(query)
                names = [column[0] for column in cursor.description or ()]
                while batch := cursor.fetchmany(_FETCH_ROWS):
                    yield from (dict(zip(names, row, strict=True)) for row in batch)

        with frozen_view(database):
            yield select
    except pymysql.ProgrammingError as error:
        raise NothingJudgedError(f"[books] of {place}: {error.args[-1]}") from error
    except pymysql.MySQLError as error:
        told = error.args[-1] if error.args else error
        raise UnreachableError(f"{place} cannot be read ({told}); start it, or {_CURE}") from error
    finally:
        if database is not None and database.open:
            database.close()


@contextmanager
def _postgres(url: str) -> Iterator[Select]:
    try:
        import psycopg  # here: a tenth of a start's time, for books in PostgreSQL alone
    except ImportError:
        raise UsageError(
            "books.url: PostgreSQL needs psycopg; pip install 'flashsale[postgres]'"
        ) from None
    place = _shown(url)
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as database:
            database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            database.read_only = True
            database.execute(f"SET LOCAL statement_timeout = {_READ_TIMEOUT_S * 1000}")
            database.execute("SET LOCAL TIME ZONE 'UTC'")

            def select(query: str) -> Iterator[Row]:
                cursor = database.execute(query.encode())
                names = [column.name for column in cursor.description or ()]
                while batch := cursor.fetchmany(_FETCH_ROWS):
                    yield from (dict(zip(names, row, strict=True)) for row in batch)

            try:
                yield select
            finally:
                database.rollback()
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise NothingJudgedError(f"[books] of {place}: {_first(error)}") from error
    except psycopg.Error as error:
        raise UnreachableError(
            f"{place} cannot be read ({_first(error)}); start it, or {_CURE}"
        ) from error


@contextmanager
def _sqlite(url: str) -> Iterator[Select]:
    path = Path(unquote(urlsplit(url).path.removeprefix("/"))).absolute()  # as SQLAlchemy has it
    try:
        database = sqlite3.connect(
            f"{path.as_uri()}?mode=ro", uri=True, timeout=_CONNECT_TIMEOUT_S, isolation_level=None
        )
    except sqlite3.Error as error:
        raise UnreachableError(f"{path} cannot be read ({error}); {_CURE}") from error
    try:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA query_only = 1")
        database.execute("BEGIN")
        yield lambda query: map(dict, database.execute(query))
    except sqlite3.OperationalError as error:
        kind = NothingJudgedError if "no such" in str(error) else UnreachableError
        raise kind(f"[books] of {path}: {error}; {_CURE}") from error
    except sqlite3.Error as error:
        raise NothingJudgedError(f"[books] of {path}: {error}") from error
    finally:
        database.close()


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


# A route ------------------------------------------------------------------------------------------


def _by_route(books: Books, base_url: str) -> Select:
    """The lists of one answer; it is asked once, so that both are of one instant."""
    url = f"{base_url.rstrip('/')}{books.route}"
    try:
        told = ask_once(
            url, total_s=_ROUTE_TIMEOUT_S, bytes_max=_ROUTE_BYTES_MAX, headers=dict(books.headers)
        )
    except UnansweredError as error:
        raise UnreachableError(f"{url} cannot be read ({error}); check books.route") from error
    if told.status != 200:
        raise UnreachableError(f"{url} answers {told.status}; check books.route and its headers")
    document, back = told.json(), {there: name for name, there in books.names.items()}

    def select(pointer: str) -> Iterator[Row]:
        found = at_pointer(document, pointer)
        if found is ABSENT or not isinstance(found, list):
            raise UnfitError(f"{pointer!r} is no list of objects in what the route answers")
        for each in found:
            if not isinstance(each, dict):
                raise UnfitError(f"{pointer!r} holds something that is no object")
            yield {back.get(str(name), str(name)): value for name, value in each.items()}

    return select


# Values -------------------------------------------------------------------------------------------


def _order(row: Row, zone: timezone, columns: set[str]) -> Order:
    if not columns:
        columns.update(row)
    for name in ("user", "voucher"):
        if row.get(name) is None:
            raise UnfitError(f"orders have no {name!r}; write such as `SELECT buyer AS {name}`")
    return Order(
        id=_text(row["id"]) if row.get("id") is not None else None,
        user=_text(row["user"]),
        voucher=_text(row["voucher"]),
        quantity=_count(row.get("quantity", 1), "quantity"),
        live=_truth(row.get("live", True)),
        at_ms=instant_ms(row.get("time"), zone),
    )


def _stock(row: Row, zone: timezone) -> Stock:
    if row.get("voucher") is None:
        raise UnfitError("stock has no 'voucher'; write such as `SELECT sku AS voucher`")
    opens, closes = (instant_ms(row.get(name), zone) for name in ("opens", "closes"))
    stock, initial = row.get("stock"), row.get("initial")
    return Stock(
        voucher=_text(row["voucher"]),
        stock=None if stock is None else _count(stock, "stock"),
        initial=None if initial is None else _count(initial, "initial"),
        opens_ms=None if opens == NO_TIME else opens,
        closes_ms=None if closes == NO_TIME else closes,
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) == 16 else value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _count(value: Any, name: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UnfitError(f"{name}: found {str(value)[:40]!r}, expected a whole number") from None
    if number != value and not isinstance(value, str):
        raise UnfitError(f"{name}: found {value!r}, expected a whole number")
    return number


def _truth(value: Any) -> bool:
    if isinstance(value, bytes):
        return any(value)
    return value.strip().lower() not in _FALSE if isinstance(value, str) else bool(value)


def instant_ms(value: Any, zone: timezone) -> int:
    """An instant in Unix ms; NO_TIME where `value` is none. One that tells no zone is of `zone`."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = int(value) if value.isascii() and value.isdigit() else None
    if isinstance(value, datetime):
        placed = value if value.tzinfo else value.replace(tzinfo=zone)
        return int((placed - _EPOCH) / timedelta(milliseconds=1))
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return NO_TIME
    number = float(value)
    if not isfinite(number):
        return NO_TIME
    return int(number) if abs(number) >= _MS_FROM else int(number * 1000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

"""Orders and stock of a shop that is not ours, as its database tells them, or a route of its own.

Everything is read in one snapshot that can write nothing. What is read is named by its column.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from flashsale.books import VOUCHERS, ShopBooks
from flashsale.errors import UnreachableError, UsageError
from flashsale.store_urls import mysql_arguments, open_mysql, read_mysql_url
from flashsale.verify.shop_routes import by_route
from flashsale.verify.shop_rows import Found, Row, RowReader, Select, Told, UnfitError
from flashsale.verify.stores import frozen_view

_ROWS_MAX = 5_000_000
_FETCH_ROWS = 10_000
_CONNECT_TIMEOUT_S = 3
_READ_TIMEOUT_S = 120
_LIMIT = re.compile(r"\b(?:LIMIT|FETCH\s+(?:FIRST|NEXT))\s+([0-9]{1,9})\b[^()]*$", re.IGNORECASE)
_CURE = "name the shop's database with --books-url"


def read_tables(shop: ShopBooks, vouchers: Sequence[int]) -> Told:
    """Orders and stocks. Raises UnreachableError where nobody answers, UnfitError where what is
    told is not what the file says, UsageError for a URL that is none."""
    books, reader = shop.books, RowReader(shop.books, vouchers)
    if not (books.orders or books.stock):
        return Told([], [], frozenset())
    with _told_of(shop), _selecting(shop) as select:
        orders = list(map(reader.order, _rows_of(shop, select, "orders", vouchers, reader)))
        stocks = list(map(reader.stock, _rows_of(shop, select, "stock", vouchers, reader)))
    return Told(orders, stocks, frozenset(reader.columns))


def count_orders(shop: ShopBooks, vouchers: Sequence[int]) -> int:
    """How many rows there are, of whatever state; counted where they are, if that can be."""
    if not shop.books.orders:
        return 0
    if not shop.books.route:
        query = shop.books.asking("orders", vouchers).rstrip().rstrip(";")
        with suppress(UnfitError), _selecting(shop) as select:
            counting = f"SELECT COUNT(*) AS found FROM (\n{query}\n) AS counted"  # noqa: S608 - its file's
            _, rows = select(counting)
            return int(next(rows)["found"])
    with _told_of(shop), _selecting(shop) as select:
        return sum(1 for _ in _rows_of(shop, select, "orders", vouchers))


@contextmanager
def _told_of(shop: ShopBooks) -> Iterator[None]:
    """Say of what is unfit whose it is."""
    try:
        yield
    except UnfitError as error:
        where = f"{shop.base_url}{shop.books.route}" if shop.books.route else _shown(shop.url)
        raise UnfitError(f"[books] of {where}: {error}") from error


def _rows_of(
    shop: ShopBooks,
    select: Select,
    what: str,
    vouchers: Sequence[int],
    reader: RowReader | None = None,
) -> Iterator[Row]:
    """The rows of `orders` or `stock`, a bounded number, whose columns are seen to by `reader`."""
    if not getattr(shop.books, what):
        return
    columns, rows = select(shop.books.asking(what, vouchers))
    if columns is not None and reader is not None:
        reader.ensure(what, columns)
    limit = None if shop.books.route else _LIMIT.search(getattr(shop.books, what))
    for number, row in enumerate(rows, 1):
        if number > _ROWS_MAX:
            raise UnfitError(f"more than {_ROWS_MAX:,} {what}; ask with WHERE … IN ({VOUCHERS})")
        if limit is not None and number == int(limit[1]) > 1:
            raise UnfitError(
                f"books.{what}: its {' '.join(limit[0].split())} is reached, so there may be more; "
                "leave it out, or raise it"
            )
        yield row


@contextmanager
def _selecting(shop: ShopBooks) -> Iterator[Select]:
    if shop.books.route:
        yield by_route(shop)
        return
    if not shop.url:
        raise UnreachableError(f"books.url: not given; {_CURE}, or FLASHSALE_BOOKS_URL")
    scheme = urlsplit(shop.url).scheme
    opened = {"sqlite": _sqlite, "postgresql": _postgres, "postgres": _postgres}
    with opened.get(scheme, _mysql)(shop.url) as select:
        yield select


def _shown(url: str) -> str:
    """A URL without its user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the database"
    if not parts.netloc:  # a file's
        return url.partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


# Databases ----------------------------------------------------------------------------------------

_REFUSED = "give the account SELECT there, or ask for what there is"
"""What helps where a database that answers says no to a query."""
_NO_OPERATOR = "42883"
_QUOTES = 'where a column is text, books.vouchers = ["1"] has {vouchers} stand in quotes'


@contextmanager
def _mysql(url: str) -> Iterator[Select]:
    place = read_mysql_url(url, "--books-url")
    database = None
    try:
        arguments = mysql_arguments(place, read_timeout_s=_READ_TIMEOUT_S)
        database = open_mysql(**arguments, autocommit=True)

        def select(query: str) -> Found:
            cursor = database.cursor()
            cursor.execute(query)
            return _found(cursor)

        with frozen_view(database):
            yield select
    except pymysql.MySQLError as error:
        code, told = (*error.args, 0)[0], error.args[-1] if error.args else error
        if database is not None and isinstance(code, int) and 1_000 <= code < 2_000:
            raise UnfitError(f"{told}; {_REFUSED}") from error
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
    place, is_open = _shown(url), False
    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as database:
            database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            database.read_only = True
            database.execute(f"SET LOCAL statement_timeout = {_READ_TIMEOUT_S * 1000}")
            database.execute("SET LOCAL TIME ZONE 'UTC'")
            is_open = True

            def select(query: str) -> Found:
                # Not by a cursor: that sends several statements where there are several, and one
                # could end the transaction that reads; or it prepares them by a name, which a
                # pool between here and the database mixes up with another's.
                result = database.pgconn.exec_params(query.encode(), None)
                if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
                    raise psycopg.errors.error_from_result(result)
                return _found(_Loaded(result, psycopg.adapt.Transformer(database)))

            try:
                yield select
            finally:
                database.rollback()
    except psycopg.Error as error:
        away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if is_open and not (away and (error.sqlstate or "08")[:2] in ("08", "57")):
            cure = _QUOTES if error.sqlstate == _NO_OPERATOR else _REFUSED
            raise UnfitError(f"{_first(error)}; {cure}") from error
        if error.sqlstate == "57014":
            raise UnfitError(f"{_first(error)}, after {_READ_TIMEOUT_S} s; ask for less") from error
        raise UnreachableError(
            f"{place} cannot be read ({_first(error)}); start it, or {_CURE}"
        ) from error


class _Loaded:
    """A result of PostgreSQL, as a cursor of the other drivers has it."""

    def __init__(self, result: Any, loading: Any) -> None:
        self._size, self._at, self._loading = result.ntuples, 0, loading
        self._loading.set_pgresult(result)
        self.description = [(result.fname(i).decode(),) for i in range(result.nfields)]

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        """So many of the rows that are left."""
        begin, self._at = self._at, min(self._at + size, self._size)
        rows: list[tuple[Any, ...]] = self._loading.load_rows(begin, self._at, tuple)
        return rows


@contextmanager
def _sqlite(url: str) -> Iterator[Select]:
    path = Path(unquote(urlsplit(url).path.removeprefix("/"))).absolute()  # as SQLAlchemy has it
    try:
        database = sqlite3.connect(
            f"{path.as_uri()}?mode=ro", uri=True, timeout=_CONNECT_TIMEOUT_S, isolation_level=None
        )
    except sqlite3.Error as error:
        raise UnreachableError(f"{path} cannot be read ({error}); {_CURE}") from error

    def select(query: str) -> Found:
        return _found(database.execute(query))

    try:
        database.execute("PRAGMA query_only = 1")
        database.execute("BEGIN")
        yield select
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY):
            raise UnreachableError(f"{path} cannot be read ({error}); {_CURE}") from error
        raise UnfitError(f"{error}; {_REFUSED}, or {_CURE}") from error
    except sqlite3.Error as error:
        raise UnfitError(f"{error}; {_REFUSED}, or {_CURE}") from error
    finally:
        database.close()


def _found(cursor: Any) -> Found:
    """What a query has come to, by any of the drivers."""
    columns = [column[0].lower() for column in cursor.description or ()]

    def rows() -> Iterator[Row]:
        while batch := cursor.fetchmany(_FETCH_ROWS):
            yield from (dict(zip(columns, row, strict=True)) for row in batch)

    return columns, rows()


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

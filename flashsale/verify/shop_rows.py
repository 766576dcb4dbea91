"""What a row of a shop's books says: ids of any text, times in any form, a truth in any spelling.

What is told and cannot be understood is refused, with the value and the cure: a time that is taken
for none, or a state that is taken for a truth, would be a wrong verdict.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

from flashsale.asking import ABSENT, at_pointer
from flashsale.books import ORDER_COLUMNS, STOCK_COLUMNS, Books
from flashsale.errors import NothingJudgedError
from flashsale.verify.stores import NO_TIME

_PER_S = ((10**11, 1), (10**14, 1_000), (10**17, 1_000_000), (10**20, 1_000_000_000))
"""Below which a number is seconds, ms, µs and ns since 1970, by how many of them a second has."""

_TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})
_FALSE = frozenset({"", "0", "f", "false", "n", "no", "off"})
_NO_DATE = re.compile(r"0000-00-00.*")  # what MySQL has in place of none
_PRINTABLE = re.compile(rb"[!-~]{16}")  # as 16 bytes of a UUID once in ten million are
_ZONE = re.compile(r"(?<=[0-9])(?: +([+-][0-9]{2}:?[0-9]{2}))?(?: *(?:UTC|GMT))?$")
_MAILED = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8}[+-][0-9]{4}")
_DIGITS = re.compile(r"20[0-9]{12}")  # 20261130100000, which as ms would be of the year 2612
_COUNT_MAX, _EXACT_BELOW = 10**12, 2**53
_OF_STOCK = frozenset({*STOCK_COLUMNS}) - {"voucher"}


class UnfitError(NothingJudgedError):
    """What was told cannot be taken for orders or stock; the message says why."""


class ShopOrder(NamedTuple):
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

    orders: Sequence[ShopOrder]
    stocks: Sequence[Stock]
    columns: frozenset[str]


Row = Mapping[str, Any]

Found = tuple[list[str] | None, Iterator[Row]]
"""The columns, None where each row has its own, and the rows."""

Select = Callable[[str], Found]
"""Finds the rows of a query, or of a route's path with the pointer behind a #."""


class RowReader:
    """Reads the rows of these books, in which `vouchers` are what is sold: a row that says nothing
    of a voucher is of the only one."""

    def __init__(self, books: Books, vouchers: Sequence[int]) -> None:
        self._zone = timezone(timedelta(minutes=books.utc_offset_min))
        self._only = books.name_of(vouchers[0]) if len(vouchers) == 1 else None
        self._live = frozenset(map(_word, books.live_is))
        self._says_live = bool(books.live_is) or "live" in books.names
        self._cure = _by_name if books.route else _by_query
        self._deep = {name: there for name, there in books.names.items() if there[:1] == "/"}
        self._names = {there: name for name, there in books.names.items()}
        self._elsewhere = {name for name, there in books.names.items() if there != name}
        self.columns: set[str] = set()

    def ensure(self, what: str, columns: Sequence[str]) -> None:
        """See that a query has the columns that have to be there, also where it finds no row.
        Raises UnfitError."""
        has = {**self._named(dict.fromkeys(columns)), **dict.fromkeys(self._deep)}
        twice = next((name for name in has if columns.count(name) > 1), None)
        if twice in (*ORDER_COLUMNS, *STOCK_COLUMNS):
            raise UnfitError(
                f"two columns of {what} are called {twice!r}; name the one that is meant"
            )
        if what == "orders":
            self.columns.update(has)
            needed, one = ["user"], "an order"
        else:
            needed, one = [], "a stock"
            if not has.keys() & _OF_STOCK:
                raise UnfitError(self._lacks(one, "stock", has))
        for name in (*needed, *(["voucher"] if self._only is None else [])):
            if name not in has:
                raise UnfitError(self._lacks(one, name, has))

    def order(self, row: Row) -> ShopOrder:
        """The order that a row is."""
        row = self._named(row)
        self.columns.update(row)
        told, user, number = row.get("quantity"), row.get("user"), row.get("id")
        if user is None:
            raise UnfitError(self._lacks("an order", "user", row))
        return ShopOrder(
            id=None if number is None else _text(number, "id"),
            user=_text(user, "user"),
            voucher=self._voucher(row, "an order"),
            quantity=1 if told is None and "quantity" not in row else _count(told, "quantity"),
            live=self._is_live(row),
            at_ms=instant_ms(row.get("time"), self._zone, "time"),
        )

    def stock(self, row: Row) -> Stock:
        """The stock that a row is."""
        row = self._named(row)
        if not row.keys() & _OF_STOCK:
            raise UnfitError(self._lacks("a stock", "stock", row))
        opens, closes = (instant_ms(row.get(n), self._zone, n) for n in ("opens", "closes"))
        left, sold, initial = (_known(row.get(name), name) for name in ("stock", "sold", "initial"))
        if left is None and sold is not None and initial is not None:
            left = initial - sold
        if initial is None and left is not None and sold is not None:
            initial = left + sold
        return Stock(
            voucher=self._voucher(row, "a stock"),
            stock=left,
            initial=initial,
            opens_ms=None if opens == NO_TIME else opens,
            closes_ms=None if closes == NO_TIME else closes,
        )

    def _named(self, row: Row) -> Row:
        """The row by our names: it may have its own, and some of it may lie deeper."""
        if not self._names:
            return row
        named = {
            self._names.get(name, name): value
            for name, value in row.items()
            if name in self._names or name not in self._elsewhere
        }
        found = {name: at_pointer(row, there) for name, there in self._deep.items()}
        return {**named, **{name: value for name, value in found.items() if value is not ABSENT}}

    def _voucher(self, row: Row, what: str) -> str:
        told = row.get("voucher")
        if told is not None:
            return _text(told, "voucher")
        if self._only is None or "voucher" in row:
            raise UnfitError(self._lacks(what, "voucher", row))
        return self._only

    def _lacks(self, what: str, name: str, row: Row) -> str:
        if name in row:
            return f"{what} whose {name!r} is NULL; leave it out, with WHERE … IS NOT NULL"
        has = ", ".join(map(str, row)) or "nothing"
        return f"{what} without {name!r} (it has {has}); {self._cure(name)}"

    def _is_live(self, row: Row) -> bool:
        """Whether it holds a unit. Where the file says what is live, an order tells whether it is:
        one taken for live that has ended would be an oversell that never was."""
        if "live" in row:
            return self._truth(row["live"])
        if self._says_live and "" not in self._live:
            raise UnfitError(self._lacks("an order", "live", row))
        return True

    def _truth(self, value: Any) -> bool:
        if self._live:
            return _word(value) in self._live
        if isinstance(value, bytes):
            return any(value)
        if value is not None and (word := _word(value)) in _TRUE | _FALSE:
            return word in _TRUE
        shown = "NULL" if value is None else repr(value if isinstance(value, str) else str(value))
        raise UnfitError(
            f"live: found {shown[:60]}, expected a truth, such as state <> 'cancelled' AS live or "
            'deleted_at IS NULL AS live; or say which values are live: live_is = ["paid"]'
        )


def _by_name(name: str) -> str:
    return (
        f'say what the route calls it: names = {{ {name} = "…" }}, or "/…/…" where it lies deeper'
    )


def _by_query(name: str) -> str:
    return f"name it in the query, such as SELECT {name}_id AS {name}"


def _word(value: Any) -> str:
    """A value as a file can write it."""
    if value is None:
        return ""
    if isinstance(value, float | Decimal) and isfinite(value) and value == int(value):
        value = int(value)
    return str(value).strip().lower()


def _text(value: Any, name: str) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        is_uuid = len(raw) == 16 and _PRINTABLE.fullmatch(raw) is None
        return str(UUID(bytes=raw)) if is_uuid else raw.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and abs(value) >= _EXACT_BELOW:
        raise UnfitError(
            f"{name}: found {value!r}, a number that was rounded; have so many digits told as "
            "text, such as by CAST(id AS CHAR)"
        )
    if isinstance(value, float | Decimal) and isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, dict | list):
        raise UnfitError(f"{name}: found {str(value)[:60]}, expected text or a number")
    return str(value).strip()  # a column of a fixed width is filled up


def _known(value: Any, name: str) -> int | None:
    return None if value is None else _count(value, name)


def _count(value: Any, name: str) -> int:
    """A whole number, however it is written: 2, 2.0, Decimal('2.00') or '2'."""
    try:
        exact = Decimal(value.strip() if isinstance(value, str) else value)
        number = int(exact)
    except (TypeError, ValueError, OverflowError, InvalidOperation):
        number, exact = 0, Decimal(1)
    if number != exact or isinstance(value, bool) or abs(number) > _COUNT_MAX:
        shown = "NULL" if value is None else repr(value if isinstance(value, str) else str(value))
        raise UnfitError(f"{name}: found {shown[:60]}, expected a whole number")
    return number


def instant_ms(value: Any, zone: timezone, name: str = "time") -> int:
    """An instant in Unix ms; NO_TIME where `value` is none. One that tells no zone is of `zone`.
    Numbers are s, ms, µs or ns, by their size. Raises UnfitError for what is no instant."""
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if isinstance(value, list):
        value = _listed(value)
    moment: Any = _moment(str(value)) if is_number or isinstance(value, str) else value
    if moment is None:
        return NO_TIME
    if isinstance(moment, datetime):
        placed = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return int((placed - _EPOCH) / timedelta(milliseconds=1))
    if isinstance(moment, int | float | Decimal) and not isinstance(moment, bool):
        number = Decimal(moment)
        for below, per_s in _PER_S:
            if number.is_finite() and abs(number) < below:
                return int(number * 1_000 / per_s)
    kind = " (a day is no instant)" if isinstance(moment, date) else ""
    raise UnfitError(
        f"{name}: found {str(value)[:60]!r}{kind}, expected such as '2026-11-30T10:00:00Z', or s, "
        "ms, µs or ns since 1970"
    )


def _listed(parts: list[Any]) -> Any:
    """A list from year to nanosecond, as Java's serializers write an instant; else as it is."""
    if not (5 <= len(parts) <= 7 and all(type(part) is int for part in parts)):
        return parts
    year, month, day, hour, minute, second, ns = (*parts, 0, 0)[:7]
    try:
        return datetime(year, month, day, hour, minute, second, ns // 1_000)
    except ValueError:
        return parts


def _moment(text: str) -> Any:
    """What a text says of time: an instant, a number, None for nothing, else the text."""
    text = text.strip()
    if not text or _NO_DATE.fullmatch(text):
        return None
    if _DIGITS.fullmatch(text):
        text = f"{text[:8]}T{text[8:]}"
    zone = _ZONE.search(text)
    if zone and zone[0]:
        text = text[: zone.start()] + (zone[1] or "+0000").replace(":", "")
    for read in _READ:
        try:
            return read(text)
        except (ValueError, InvalidOperation):
            continue
    return text


def _mailed(text: str) -> datetime:
    """An instant as headers and mails have it."""
    if _MAILED.fullmatch(text) is None:
        raise ValueError(text)
    return parsedate_to_datetime(text)


_READ: tuple[Callable[[str], Any], ...] = (Decimal, datetime.fromisoformat, _mailed)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

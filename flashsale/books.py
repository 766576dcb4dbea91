"""[books]: where a shop that is not ours keeps its truth, as its file says it.

Orders and stock by SQL or from JSON routes of the shop, and what it keeps in Redis; all of it
optional. Who judges reads them, and writes nowhere.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from flashsale.asking import Way
from flashsale.model import id_of, text_id

ORDER_COLUMNS = ("id", "user", "voucher", "quantity", "live", "time")
STOCK_COLUMNS = ("voucher", "stock", "sold", "initial", "opens", "closes")
"""What the two queries, or lists of a route, may tell; `user` of an order has to be there, and
`voucher` where several are sold."""

VOUCHERS = "{vouchers}"
"""In a query or a route: the vouchers that are sold, as a list for IN (…)."""

PAGES = ("{page}", "{page0}", "{offset}")
"""In a route that tells in pages: the page's number from 1 or from 0 on, or how many were told on
the pages before it."""

SQL_SCHEMES = ("mysql", "mariadb", "postgresql", "postgres", "sqlite")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_QUERY = re.compile(r"[\s(]*(?:SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`")
_WRITES = re.compile(
    r"\b(?:INTO|DELETE)\s+\w+|[()]\s*UPDATE\s+\w+(?=.*\bSET\b)|\bLOCK\s+IN\s+SHARE\s+MODE\b"
    r"|\bFOR\s+(?:NO\s+KEY\s+|KEY\s+)?(?:UPDATE|SHARE)\b",
    re.IGNORECASE | re.DOTALL,
)
"""What a query writes or locks with, behind a WITH as well; a database that reads alone refuses the
rest."""

_POINTER = re.compile(r"(/[^/]*)*")
_COLLECTIONS = ("holders", "receipts")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


def _check_url(name: str, url: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise ValueError(f"{name}: expected a URL") from None
    if parts.scheme not in schemes:
        forms = ", ".join(f"{scheme}://" for scheme in schemes)
        other = "" if "redis" in name else "; a shop that keeps them elsewhere tells by books.route"
        plain = parts.scheme.partition("+")[0]  # as SQLAlchemy names a driver
        meant = f", did you mean {plain}://?" if plain in schemes else ""
        raise ValueError(
            f"{name}: found {parts.scheme[:20]!r}{meant}, expected one of {forms}{other}"
        )
    if password is not None:
        option = "FLASHSALE_BOOKS_REDIS" if "redis" in name else "FLASHSALE_BOOKS"
        raise ValueError(
            f"{name}: holds a password, and a run keeps a copy of this file; leave it out, and put "
            f"the whole URL into {option}_URL, or the password's file into {option}_PASSWORD_FILE"
        )


def check_names(where: str, names: Iterable[str | int]) -> tuple[str, ...]:
    """What vouchers are called, as text. Raises ValueError for what is no id, or stands twice."""
    found = tuple(map(str, names))
    for number, name in enumerate(found):
        if text_id(name) is None:
            raise ValueError(f"{where}: found {name[:80]!r}, expected an id, without quotes in it")
        if name in found[:number]:
            raise ValueError(f"{where}: {name[:80]!r} stands there twice; leave one of them out")
    return found


def _check_query(name: str, text: str) -> None:
    bare = _QUOTED.sub(" x ", _COMMENTS.sub(" ", text))
    if not _QUERY.match(bare):
        raise ValueError(f"books.{name}: expected a SELECT, such as {_EXAMPLES[name]}")
    if (found := _WRITES.search(bare)) is not None:
        raise ValueError(
            f"books.{name}: found {' '.join(found[0].strip(' ()').split())!r}, expected a SELECT "
            f"that writes and locks nothing, such as {_EXAMPLES[name]}"
        )
    if ";" in bare.rstrip().rstrip(";"):
        raise ValueError(f"books.{name}: found several statements, expected one SELECT")
    if strange := set(re.findall(r"\{[^{}]*\}", bare)) - {VOUCHERS}:
        raise ValueError(f"books.{name}: found {min(strange)}, expected {VOUCHERS} alone")
    if VOUCHERS in text and VOUCHERS not in bare:
        raise ValueError(
            f"books.{name}: found {VOUCHERS} in quotes or a comment; write IN ({VOUCHERS}), where "
            "each gets quotes of its own if it is text"
        )


def _family_fields() -> dict[str, str]:
    return {"id": "id", "user": "userId", "voucher": "voucherId"}


class RedisBooks(_Table):
    """What a shop keeps in Redis; a key that is not given is not there. `{voucher}` in a key is
    the voucher's id, `{user}` one in a key for each user."""

    url: str = Field(
        default="", description="redis://…, without a password; or FLASHSALE_BOOKS_REDIS_URL"
    )
    stock: str = Field(default="", description="the key of a voucher's units left")
    stock_field: str = Field(
        default="", description="where that is a hash: the field of the number"
    )
    stock_is: Literal["number", "countdown", "sold", "units"] = Field(
        default="number",
        description='of units left; or "countdown": below nought by who is refused; or "sold": of '
        'units sold, and of who is refused; or "units": a list or set with each that is left',
    )
    holders: str = Field(
        default="",
        description="the key of a set or list of users with an order, or a hash by user, or with "
        "{user} in it the key of each",
    )
    receipts: str = Field(
        default="",
        description="the key of a hash, user to order id, or with {user} in it of each order id",
    )
    stream: str = Field(default="", description="the stream of orders")
    group: str = Field(default="", description="the workers' group; else the only one there")
    list_: tuple[str, ...] = Field(
        default=(),
        alias="list",
        strict=False,
        description="a list of orders in its place, or several, such as what waits and what is "
        "worked on; sets and hashes, too",
    )
    fields: dict[str, str] = Field(
        default_factory=_family_fields,
        description="the fields of the stream's entries",
    )

    @field_validator("list_", mode="before")
    @classmethod
    def _one_is_a_list(cls, keys: Any) -> Any:
        return (keys,) if isinstance(keys, str) and keys else keys or ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.url:
            _check_url("books.redis.url", self.url, _REDIS_SCHEMES)
        if self.stock_field and (not self.stock or self.stock_is == "units"):
            raise ValueError("books.redis.stock_field: this is for a hash, books.redis.stock")
        if "{user}" in self.stock:
            raise ValueError(f"books.redis.stock: found {self.stock!r}, expected no {{user}} in it")
        for name in ("stock", *_COLLECTIONS):
            key = getattr(self, name)
            if strange := set(re.findall(r"\{[^{}]*\}", key)) - {"{voucher}", "{user}"}:
                raise ValueError(
                    f"books.redis.{name}: found {min(strange)}, expected {{voucher}} or {{user}}"
                )
        if strange := set(self.fields) - set(_family_fields()):
            raise ValueError(
                f"books.redis.fields: found {min(strange)!r}, expected id, user, voucher"
            )
        if self.stream and self.list_:
            raise ValueError("books.redis: a stream or a list is the queue; leave one of them out")
        return self

    @property
    def queue(self) -> str:
        """The key of the queue, or several; empty where there is none."""
        return self.stream or ", ".join(self.list_)

    def shared(self) -> str:
        """A key that is the same for all vouchers, by its name here; empty where there is none."""
        keys = {name: getattr(self, name) for name in ("stock", *_COLLECTIONS)}
        return next((n for n, key in keys.items() if key and "{voucher}" not in key), "")


class Books(_Table):
    """Where the truth is. The queries name what they tell by its column: orders by id, user,
    voucher, quantity, live and time, stock by voucher, stock, sold, initial, opens and closes."""

    url: str = Field(
        default="",
        description="mysql://, postgresql:// or sqlite:///, without a password; "
        "or FLASHSALE_BOOKS_URL",
    )
    orders: str = Field(
        default="",
        description="SQL for the orders, or a route's JSON pointer; without it the holders or "
        "receipts in Redis are the orders",
    )
    stock: str = Field(default="", description="SQL for the stock, or a route's JSON pointer")
    route: str = Field(
        default="",
        description="in place of SQL: a path of the shop, for its JSON; with {page}, {page0} or "
        "{offset} in it page by page",
    )
    stock_route: str = Field(default="", description="the path for the stock, where it is another")
    headers: dict[str, str] = Field(default_factory=dict, description="of the route's request")
    names: dict[str, str] = Field(
        default_factory=dict,
        description='what the JSON calls them: user = "buyer", or deeper: user = "/buyer/id"',
    )
    vouchers: tuple[str | int, ...] = Field(
        default=(),
        strict=False,
        max_length=10_000,
        description="what the books call vouchers 1, 2, 3 …; else as target.vouchers",
    )
    live_is: tuple[str | int | bool, ...] = Field(
        default=(),
        strict=False,
        description='the values of `live` in orders that hold units, "" for none; else a truth',
    )
    may_end: bool = Field(
        default=False,
        description="whether orders may end though nobody cancels, such as unpaid ones in time",
    )
    time_is: Literal["sold", "written", "stream"] = Field(
        default="sold",
        description="when it was sold, or when its row was written, "
        "or by the stream's entry when it was sold",
    )
    utc_offset_min: int = Field(
        default=0, ge=-840, le=840, description="the zone of times that tell none"
    )
    rest_ms: int = Field(
        default=2_000,
        ge=100,
        le=600_000,
        description="rows that rest so long are all, where no queue can be read",
    )
    redis: RedisBooks | None = Field(default=None, description="the table [books.redis]")

    @field_validator("vouchers")
    @classmethod
    def _vouchers_are_ids(cls, names: tuple[str | int, ...]) -> tuple[str, ...]:
        return check_names("books.vouchers", names)

    @field_validator("live_is", mode="before")
    @classmethod
    def _one_is_a_list(cls, values: Any) -> Any:
        return values if isinstance(values, list | tuple) else (values,)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.url:
            _check_url("books.url", self.url, SQL_SCHEMES)
        if self.route:
            self._check_route()
        elif self.stock_route or self.headers:
            name = "stock_route" if self.stock_route else "headers"
            raise ValueError(f"books.{name}: this is for a shop with books.route")
        else:
            for name, text in (("orders", self.orders), ("stock", self.stock)):
                if text:
                    _check_query(name, text)
        if not (self.orders or self._redis_has_orders):
            raise ValueError(
                f"books.orders: missing, expected where orders are, such as {_EXAMPLES['orders']}"
            )
        if strange := set(self.names) - {*ORDER_COLUMNS, *STOCK_COLUMNS}:
            raise ValueError(
                f"books.names: found {min(strange)!r}, expected some of "
                f"{', '.join(dict.fromkeys((*ORDER_COLUMNS, *STOCK_COLUMNS)))}"
            )
        if self.time_is == "stream" and not (self.redis and self.redis.stream):
            raise ValueError("books.time_is: 'stream' needs books.redis.stream")
        return self

    def _check_route(self) -> None:
        for name, path in (("route", self.route), ("stock_route", self.stock_route)):
            if strange := set(re.findall(r"\{[^{}]*\}", path)) - {VOUCHERS, *PAGES}:
                raise ValueError(
                    f"books.{name}: found {min(strange)}, expected {', '.join((VOUCHERS, *PAGES))}"
                )
            if path and (self.url or not path.startswith("/")):
                raise ValueError(
                    f"books.{name}: found {path!r}, expected a path, and no books.url beside"
                )
        for pointer in (self.orders, self.stock):
            if not _POINTER.fullmatch(pointer):
                raise ValueError(
                    f"books: found {pointer!r}, expected a pointer as '/orders', or '/' for all "
                    "that the route answers"
                )

    @property
    def _redis_has_orders(self) -> bool:
        redis = self.redis
        return redis is not None and bool(redis.holders or redis.receipts)

    @property
    def orders_in_redis(self) -> bool:
        """Whether nothing but Redis knows of the orders."""
        return not self.orders and self._redis_has_orders

    def trouble(self, vouchers: int, units_apart: bool = False) -> str:
        """What keeps so many vouchers, or with `units_apart` several units or orders of a user,
        from being told apart; empty where nothing does."""
        if units_apart and self.orders_in_redis:
            return (
                "books.orders: missing; where a user holds several units or orders, keys of Redis "
                "do not say how many"
            )
        if self.vouchers and len(self.vouchers) < vouchers:
            return f"books.vouchers: names {len(self.vouchers):,} of {vouchers:,} vouchers"
        shared = self.redis.shared() if self.redis and vouchers > 1 else ""
        if shared:
            key = getattr(self.redis, shared)
            return (
                f"books.redis.{shared}: found {key!r}, expected {{voucher}} in it, since "
                f"{vouchers:,} vouchers are sold"
            )
        return ""

    def asking(self, what: str, vouchers: Iterable[int]) -> str:
        """What is asked for the `orders` or the `stock` of these vouchers: a query, or a route's
        path with the pointer behind a #."""
        text: str = getattr(self, what)
        names = [self.name_of(voucher) for voucher in vouchers]
        if self.route:
            path = self.stock_route if what == "stock" and self.stock_route else self.route
            return f"{path.replace(VOUCHERS, ','.join(map(quote, names)))}#{text}"
        listed = ["'{}'".format(n.replace("'", "''")) for n in names] if self.vouchers else names
        return text.replace(VOUCHERS, ", ".join(listed))

    def name_of(self, voucher: int) -> str:
        """What the books call a voucher."""
        within = 1 <= voucher <= len(self.vouchers)
        return str(self.vouchers[voucher - 1]) if within else str(voucher)

    def number_of(self, name: str) -> int:
        """The voucher that the books call so; a number that is nobody's for one that is not
        sold."""
        if not self.vouchers:
            return id_of(name)
        known = {id_of(str(each)): number for number, each in enumerate(self.vouchers, 1)}
        return known.get(id_of(name)) or id_of(f"another, {name}")


_EXAMPLES = {
    "orders": '"SELECT id, user_id AS user, sku AS voucher FROM orders"',
    "stock": '"SELECT sku AS voucher, stock FROM stocks"',
}


@dataclass(frozen=True)
class ShopBooks:
    """The books of a shop, and where they are; `way` leads to its routes, where that is not by
    plain TCP."""

    books: Books
    url: str = ""
    redis_url: str = ""
    base_url: str = ""
    way: Way | None = None

    @property
    def rests_on(self) -> tuple[str, ...]:
        """What a verdict by them rests on."""
        books, redis = self.books, self.books.redis
        told = "a route of the shop" if books.route else "the shop's database"
        found = [f"orders of {'Redis' if books.orders_in_redis else told}"]
        found += [f"stock of {told}"] if books.stock else []
        if redis is not None and self.redis_url:
            kept = [name for name in ("stock", "holders", "receipts") if getattr(redis, name)]
            found += [f"Redis: {', '.join(kept)}"] if kept else []
            found += [f"the queue {redis.queue}"] if redis.queue else []
        return tuple(found)

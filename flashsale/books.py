"""[books]: where a shop that is not ours keeps its truth, as its file says it.

Orders and stock by SQL or from a JSON route of the shop, and what it keeps in Redis; all of it
optional. Who judges reads them, and writes nowhere.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

ORDER_COLUMNS = ("id", "user", "voucher", "quantity", "live", "time")
STOCK_COLUMNS = ("voucher", "stock", "initial", "opens", "closes")
"""What the two queries, or lists of a route, may tell; `user` and `voucher` of an order have to be
there, and `voucher` of a stock."""

SQL_SCHEMES = ("mysql", "mariadb", "postgresql", "postgres", "sqlite")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_QUERY = re.compile(r"\s*(?:SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)
_POINTER = re.compile(r"(/[^/]*)*")


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
        raise ValueError(f"{name}: found {parts.scheme[:20]!r}, expected one of {forms}")
    if password is not None:
        option = "FLASHSALE_BOOKS_REDIS" if "redis" in name else "FLASHSALE_BOOKS"
        raise ValueError(
            f"{name}: holds a password, and a run keeps a copy of this file; leave it out, and put "
            f"the whole URL into {option}_URL, or the password's file into {option}_PASSWORD_FILE"
        )


def _family_fields() -> dict[str, str]:
    return {"id": "id", "user": "userId", "voucher": "voucherId"}


class RedisBooks(_Table):
    """What a shop keeps in Redis; a key that is not given is not there. `{voucher}` in a key is
    the voucher's id."""

    url: str = Field(
        default="", description="redis://…, without a password; or FLASHSALE_BOOKS_REDIS_URL"
    )
    stock: str = Field(default="", description="the key of a voucher's units left")
    holders: str = Field(
        default="", description="the key of a set of users with an order, or a hash by user"
    )
    receipts: str = Field(default="", description="the key of a hash, user to order id")
    stream: str = Field(default="", description="the stream of orders")
    group: str = Field(default="", description="the workers' group; else the only one there")
    list_: str = Field(default="", alias="list", description="a list of orders, in its place")
    fields: dict[str, str] = Field(
        default_factory=_family_fields,
        description="the fields of the stream's entries",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.url:
            _check_url("books.redis.url", self.url, _REDIS_SCHEMES)
        for name in ("stock", "holders", "receipts"):
            key = getattr(self, name)
            if key and "{voucher}" not in key:
                raise ValueError(f"books.redis.{name}: found {key!r}, expected {{voucher}} in it")
        if strange := set(self.fields) - set(_family_fields()):
            raise ValueError(
                f"books.redis.fields: found {min(strange)!r}, expected id, user, voucher"
            )
        if self.stream and self.list_:
            raise ValueError("books.redis: a stream or a list is the queue; leave one of them out")
        return self

    @property
    def queue(self) -> str:
        """The key of the queue, empty where there is none."""
        return self.stream or self.list_


class Books(_Table):
    """Where the truth is. The queries name what they tell by its column: orders by id, user,
    voucher, quantity, live and time, stock by voucher, stock, initial, opens and closes."""

    url: str = Field(
        default="",
        description="mysql://, postgresql:// or sqlite:///, without a password; "
        "or FLASHSALE_BOOKS_URL",
    )
    orders: str = Field(default="", description="SQL for the orders, or a route's JSON pointer")
    stock: str = Field(default="", description="SQL for the stock, or a route's JSON pointer")
    route: str = Field(default="", description="in place of SQL: a path of the shop, for its JSON")
    headers: dict[str, str] = Field(default_factory=dict, description="of the route's request")
    names: dict[str, str] = Field(
        default_factory=dict, description='what the JSON calls them: user = "buyer"'
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

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.url:
            _check_url("books.url", self.url, SQL_SCHEMES)
        if self.route:
            if self.url or not self.route.startswith("/"):
                raise ValueError(
                    f"books.route: found {self.route!r}, expected a path, and no books.url beside"
                )
            for pointer in (self.orders, self.stock):
                if not _POINTER.fullmatch(pointer):
                    raise ValueError(f"books: found {pointer!r}, expected a pointer as '/orders'")
        else:
            for name, text in (("orders", self.orders), ("stock", self.stock)):
                if text and not _QUERY.match(text):
                    raise ValueError(f"books.{name}: expected a SELECT, such as {_EXAMPLES[name]}")
        if not self.orders:
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


_EXAMPLES = {
    "orders": '"SELECT id, user_id AS user, sku AS voucher FROM orders"',
    "stock": '"SELECT sku AS voucher, stock FROM stocks"',
}


@dataclass(frozen=True)
class ShopBooks:
    """The books of a shop, and where they are."""

    books: Books
    url: str = ""
    redis_url: str = ""
    base_url: str = ""

    @property
    def rests_on(self) -> tuple[str, ...]:
        """What a verdict by them rests on."""
        books, redis = self.books, self.books.redis
        told = "a route of the shop" if books.route else "the shop's database"
        found = [f"orders of {told}"]
        found += [f"stock of {told}"] if books.stock else []
        if redis is not None and self.redis_url:
            kept = [name for name in ("stock", "holders", "receipts") if getattr(redis, name)]
            found += [f"Redis: {', '.join(kept)}"] if kept else []
            found += [f"the queue {redis.queue}"] if redis.queue else []
        return tuple(found)

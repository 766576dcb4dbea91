"""What a shop that is not ours keeps in Redis, under keys of its own: stock, holders, receipts, and
the queue of its orders. Read by commands of `@read` alone, so that an account may have no others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from flashsale.books import RedisBooks
from flashsale.errors import UnreachableError
from flashsale.model import id_of
from flashsale.store_urls import read_redis_url
from flashsale.verify.queue import (
    BEGINNING,
    Backlog,
    Entry,
    Queue,
    added,
    first_entry,
    last_entry,
    page,
    pages,
    position,
    read_info,
)
from flashsale.verify.stores import READ_TIMEOUT_S, LedgerSale, open_redis

_SCAN_COUNT = 10_000
_NAMED_MAX = 20
_PAGE = 1_000
_HOLDERS = ("set", "hash", "zset")


@contextmanager
def shop_redis(books: RedisBooks | None, url: str) -> Iterator[Redis | None]:
    """A connection that only reads; None where the shop has no Redis that is known.

    Its first command is a look at a key, since an account that only reads may not even ping. The
    block's driver errors become ours.
    """
    if books is None or not url:
        yield None
        return
    place = read_redis_url(url, "--books-redis-url")
    redis = open_redis(url, READ_TIMEOUT_S)
    try:
        redis.type(books.queue or books.stock)
        yield redis
    except RedisError as error:
        raise UnreachableError(
            f"{place} cannot be read ({error}); start it, or name another with --books-redis-url"
        ) from error
    finally:
        redis.close()


def _key(template: str, voucher: int) -> str:
    return template.replace("{voucher}", str(voucher))


def read_ledger(
    redis: Redis, books: RedisBooks, voucher: int, initial: int | None, names: dict[int, str]
) -> LedgerSale:
    """What Redis holds of a voucher. `initial` is what it was opened with, since nobody says so
    there; `names` takes the ids that are no numbers."""
    odd: list[str] = []
    stock = _stock(redis, _key(books.stock, voucher), odd) if books.stock else None
    holders = _key(books.holders, voucher) if books.holders else ""
    members = {_number(text, names) for text in _holders(redis, holders, odd)} if holders else set()
    receipts: dict[int, int] = {}
    if books.receipts:
        key = _key(books.receipts, voucher)
        if _is_of(redis, key, ("hash",), odd):
            for user, order in redis.hscan_iter(key, count=_SCAN_COUNT):
                receipts[_number(_text(user), names)] = _number(_text(order), names)
    return LedgerSale(
        stock=stock,
        initial=initial if stock is not None else None,
        members=members,
        receipts=receipts,
        oddities=tuple(odd),
    )


def _is_of(redis: Redis, key: str, kinds: Sequence[str], odd: list[str]) -> bool:
    found = bytes(redis.type(key)).decode()  # type: ignore[arg-type]
    if found not in (*kinds, "none"):
        odd.append(f"{key} is a {found}, not a {' or a '.join(kinds)}")
    return found in kinds


def _stock(redis: Redis, key: str, odd: list[str]) -> int | None:
    if not _is_of(redis, key, ("string",), odd):
        return None
    raw: Any = redis.get(key)
    try:
        return int(raw)
    except (TypeError, ValueError):
        odd.append(f"{key} holds {raw!r}, which is no number")
        return None


def _holders(redis: Redis, key: str, odd: list[str]) -> Iterator[str]:
    if not _is_of(redis, key, _HOLDERS, odd):
        return
    kind = bytes(redis.type(key)).decode()  # type: ignore[arg-type]
    if kind == "set":
        yield from map(_text, redis.sscan_iter(key, count=_SCAN_COUNT))
    elif kind == "hash":
        yield from (_text(user) for user, _ in redis.hscan_iter(key, count=_SCAN_COUNT))
    else:
        yield from (_text(user) for user, _ in redis.zscan_iter(key, count=_SCAN_COUNT))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip('"')  # a serializer of JSON quotes what it keeps


def _number(text: str, names: dict[int, str]) -> int:
    number = id_of(text)
    if str(number) != text:
        names[number] = text
    return number


def read_pulse(redis: Redis | None, books: RedisBooks | None, vouchers: Sequence[int]) -> object:
    """What changes when something is sold: stocks, and how far the queue is."""
    if redis is None or books is None:
        return None
    stocks = [redis.get(_key(books.stock, voucher)) for voucher in vouchers] if books.stock else []
    if books.stream:
        return stocks, last_entry(read_info(redis, books.stream))
    return stocks, redis.llen(books.list_) if books.list_ else None


# The queue ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShopQueue:
    """The queue of a shop; `why` says what keeps it from being judged, if anything does, and
    `entry_ms` when each order was put into it."""

    queue: Queue = field(default_factory=Queue)
    why: str = ""
    entry_ms: Mapping[int, int] = field(default_factory=dict)


def read_shop_queue(
    redis: Redis | None, books: RedisBooks | None, since: str, names: dict[int, str]
) -> ShopQueue:
    """The queue after the entry `since`."""
    if books is None or not books.queue:
        return ShopQueue(why="[books] names no queue that could be read")
    if redis is None:
        return ShopQueue(why="Redis is not given (--books-redis-url)")
    if books.list_:
        length: Any = redis.llen(books.list_)
        seen = Queue(exists=True, stream=books.list_, backlog=Backlog(undelivered=int(length)))
        return ShopQueue(seen)
    info = read_info(redis, books.stream)
    if info is None:
        gone = Queue(exists=False, stream=books.stream)
        return ShopQueue(gone, why=f"there is no stream {books.stream}")
    return _stream(redis, books, info, since, names)


def _stream(
    redis: Redis, books: RedisBooks, info: Mapping[str, Any], since: str, names: dict[int, str]
) -> ShopQueue:
    listed: Any = redis.xinfo_groups(books.stream)
    groups: dict[str, Mapping[str, Any]] = {bytes(each["name"]).decode(): each for each in listed}
    name, why = _group_of(books, groups)
    group = groups.get(name)
    delivered = bytes(group["last-delivered-id"]).decode() if group else BEGINNING
    entries = {
        bytes(raw).decode(): _entry(bytes(raw).decode(), fields, books.fields, names)
        for found in pages(redis, books.stream, since)
        for raw, fields in found
    }
    if why:  # somebody else reads it, so nobody knows how far
        backlog, stuck = Backlog(), []
    else:
        left_from = max(position(delivered), position(since))
        waiting = [e for entry, e in entries.items() if position(entry) > left_from]
        pending = _pending(redis, books.stream, name, since) if group else []
        backlog = Backlog(len(waiting), len(pending))
        note = "never delivered" if group else f"no group reads {books.stream}"
        stuck = [*(_stuck(p, entries) for p in pending), *(_noted(e, note) for e in waiting)]
    seen = Queue(
        exists=True,
        stream=books.stream,
        group=name or books.group or "of its workers",
        has_group=group is not None or bool(why),
        added=added(info),
        first_entry=first_entry(info),
        last_entry=last_entry(info),
        backlog=backlog,
        stuck=tuple(stuck[:_NAMED_MAX]),
    )
    entry_ms = {e.order: position(entry)[0] for entry, e in entries.items() if e.order}
    return ShopQueue(seen, why, entry_ms)


def _group_of(books: RedisBooks, groups: Mapping[str, object]) -> tuple[str, str]:
    """The workers' group, and what keeps one from knowing which it is.

    1. the file names one: that, if it is there, or if there is none at all; then nobody reads.
    2. it names none: the only one that is there.
    3. in all other cases nobody knows.
    """
    if books.group in groups or (books.group and not groups):
        return books.group, ""
    if not groups:
        return "", f"no group reads {books.stream}, so nobody tells how far it was read"
    others = ", ".join(sorted(groups))
    if books.group:
        return "", f"{books.stream} has no group {books.group}, but {others}: name it in the file"
    if len(groups) > 1:
        return "", f"{books.stream} has several groups ({others}): name one in the file"
    return next(iter(groups)), ""


def _pending(redis: Redis, stream: str, group: str, since: str) -> list[Any]:
    every: list[Any] = []
    while True:
        found: Any = redis.xpending_range(stream, group, min=f"({since}", max="+", count=_PAGE)
        every += found
        if len(found) < _PAGE:
            return every
        since = bytes(found[-1]["message_id"]).decode()


def _entry(
    entry: str, fields: Mapping[bytes, bytes], called: Mapping[str, str], names: dict[int, str]
) -> Entry:
    told = {name: fields.get(there.encode()) for name, there in called.items()}
    ids = {name: _number(_text(raw), names) if raw else None for name, raw in told.items()}
    return Entry(entry, ids.get("id"), ids.get("user"), ids.get("voucher"))


def _noted(entry: Entry, note: str) -> Entry:
    return Entry(entry.entry, entry.order, entry.user, entry.voucher, note)


def _stuck(pending: Mapping[str, Any], entries: Mapping[str, Entry]) -> Entry:
    entry = bytes(pending["message_id"]).decode()
    note = (
        f"pending with {bytes(pending['consumer']).decode()} for "
        f"{pending['time_since_delivered'] / 1000:.0f} s after "
        f"{pending['times_delivered']} deliveries"
    )
    return _noted(entries.get(entry) or Entry(entry), note)


def is_filling(redis: Redis, books: RedisBooks, after: str) -> bool:
    """Whether something was put into the stream after this entry."""
    return bool(books.stream and page(redis, books.stream, after, "+", 1))


# The wait -----------------------------------------------------------------------------------------


@dataclass
class Rest:
    """Ends a wait when a count has not changed for `rest_s`. Pure: the caller brings the time."""

    rest_s: float
    last: int | None = None
    since_s: float = 0.0

    def is_over(self, count: int, now_s: float) -> bool:
        """True where it has rested for so long."""
        if count != self.last:
            self.last, self.since_s = count, now_s
        return now_s - self.since_s >= self.rest_s

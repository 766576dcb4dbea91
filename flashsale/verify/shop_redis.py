"""What a shop that is not ours keeps in Redis, under keys of its own: stock, holders, receipts, and
the queue of its orders. Read by commands of `@read` alone, so that an account may have no others.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from flashsale.books import Books, RedisBooks
from flashsale.errors import UnreachableError
from flashsale.model import id_of
from flashsale.store_urls import read_redis_url
from flashsale.verify.queue import (
    BEGINNING,
    Backlog,
    Queue,
    QueueEntry,
    added,
    first_entry,
    last_entry,
    pages,
    position,
    read_info,
)
from flashsale.verify.stores import READ_TIMEOUT_S, LedgerSale, open_redis

_SCAN_COUNT = 10_000
_NAMED_MAX = 20
_PAGE = 1_000
_HOLDERS = ("set", "hash", "zset", "list")
_UNITS = ("list", "set", "zset")
_USER = "{user}"
_COUNTED: Mapping[str, Callable[[Redis, str], Any]] = {
    "list": Redis.llen,
    "set": Redis.scard,
    "zset": Redis.zcard,
    "hash": Redis.hlen,
    "stream": Redis.xlen,
}
"""How many there are in a key of each type: units, each an element, or orders that wait."""


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
        redis.type(books.stream or books.stock)
        yield redis
    except NoPermissionError as error:
        raise UnreachableError(
            f"{place} refuses to be read ({error}); give the account +@read and the keys of "
            "[books.redis]"
        ) from error
    except RedisError as error:
        raise UnreachableError(
            f"{place} cannot be read ({error}); start it, or name another with --books-redis-url"
        ) from error
    finally:
        redis.close()


def read_ledger(redis: Redis, books: Books, voucher: int, names: dict[int, str]) -> LedgerSale:
    """What Redis holds of a voucher, but for what it was opened with, since nobody says so there.
    `names` takes the ids that are no numbers."""
    assert books.redis is not None
    odd: list[str] = []
    stock, holders, receipts = (
        key.replace("{voucher}", books.name_of(voucher))
        for key in (books.redis.stock, books.redis.holders, books.redis.receipts)
    )
    orders = {
        numbered(user, names): numbered(order, names)
        for user, order in (_receipts(redis, receipts, odd) if receipts else ())
    }
    members = {numbered(user, names) for user in (_holders(redis, holders, odd) if holders else ())}
    return LedgerSale(
        stock=_stock(redis, books.redis, stock, odd) if stock else None,
        members=members if holders else set(orders),
        receipts=orders,
        oddities=tuple(odd),
    )


def _kind(redis: Redis, key: str, kinds: Collection[str], odd: list[str]) -> str:
    """The type of a key, empty where it is none of these."""
    found = bytes(redis.type(key)).decode()  # type: ignore[arg-type]
    if found in kinds:
        return found
    if found != "none":
        odd.append(f"{key} is a {found}, not a {' or a '.join(kinds)}")
    return ""


def _stock(redis: Redis, kept: RedisBooks, key: str, odd: list[str]) -> int | None:
    """The units left, or sold: the number that a key or a field of it holds, or how many units
    there are in it."""
    if kept.stock_is == "units":
        kind = _kind(redis, key, _UNITS, odd)
        return int(_COUNTED[kind](redis, key)) if kind else None if odd else 0
    is_field = bool(kept.stock_field)
    cure: list[str] = []
    if not _kind(redis, key, ("hash",) if is_field else ("string",), cure):
        odd += [f'{told}; see to stock_field, or stock_is = "units"' for told in cure]
        return None
    raw: Any = redis.hget(key, kept.stock_field) if is_field else redis.get(key)
    held = f"{kept.stock_field} of {key}" if is_field else key
    try:
        number = int(_text(raw))
    except (TypeError, ValueError, AttributeError):
        odd.append(f"{held} holds {raw!r}, which is no number")
        return None
    if number < 0 and kept.stock_is == "number":
        odd.append(
            f"{held} holds {number:,}; where it is who is refused that counts it down, say "
            'stock_is = "countdown"'
        )
    return max(0, number) if kept.stock_is == "countdown" else number


def _holders(redis: Redis, key: str, odd: list[str]) -> Iterator[str]:
    if _USER in key:
        yield from (user for user, _ in _keys(redis, key))
        return
    kind = _kind(redis, key, _HOLDERS, odd)
    if kind == "set":
        yield from map(_text, redis.sscan_iter(key, count=_SCAN_COUNT))
    elif kind == "hash":
        yield from (_text(user) for user, _ in redis.hscan_iter(key, count=_SCAN_COUNT))
    elif kind == "zset":
        yield from (_text(user) for user, _ in redis.zscan_iter(key, count=_SCAN_COUNT))
    elif kind:
        listed: Any = redis.lrange(key, 0, -1)
        users = Counter(map(_text, listed))
        odd += [
            f"{key} names user {user} {times} times" for user, times in users.items() if times > 1
        ]
        yield from users


def _receipts(redis: Redis, key: str, odd: list[str]) -> Iterator[tuple[str, str]]:
    """Users with their orders."""
    if _USER in key:
        found = list(_keys(redis, key))
        for start in range(0, len(found), _PAGE):
            part = found[start : start + _PAGE]
            told: Any = redis.mget([raw for _, raw in part])
            yield from ((u, _text(o)) for (u, _), o in zip(part, told, strict=True) if o)
    elif _kind(redis, key, ("hash",), odd):
        for user, order in redis.hscan_iter(key, count=_SCAN_COUNT):
            yield _text(user), _text(order)


def _keys(redis: Redis, key: str) -> Iterator[tuple[str, bytes]]:
    """The keys of a pattern with one for each user, by the user."""
    before, _, behind = key.partition(_USER)
    shape = re.compile(f"{re.escape(before)}(.+){re.escape(behind)}", re.DOTALL)
    pattern = "*".join(re.sub(r"([*?\[\]\\^])", r"\\\1", part) for part in (before, behind))
    for raw in redis.scan_iter(pattern, count=_SCAN_COUNT):
        if match := shape.fullmatch(bytes(raw).decode("utf-8", "replace")):
            yield match[1], raw


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip('"')  # a serializer of JSON quotes what it keeps


def numbered(text: str, names: dict[int, str]) -> int:
    """The number of an id, which `names` takes where it is none."""
    number = id_of(text)
    if str(number) != text:
        names[number] = text
    return number


def read_pulse(redis: Redis | None, books: Books, vouchers: Sequence[int]) -> object:
    """What changes when something is sold: stocks, and how far the queue is."""
    kept = books.redis
    if redis is None or kept is None:
        return None
    keys = [kept.stock.replace("{voucher}", books.name_of(v)) for v in vouchers if kept.stock]
    stocks = [_stock(redis, kept, key, []) for key in keys]
    if kept.stream:
        return stocks, last_entry(read_info(redis, kept.stream))
    return stocks, _length(redis, kept.list_)


def _length(redis: Redis, keys: Collection[str]) -> int:
    """How many there are in all of these, whatever each is."""
    kinds = {key: bytes(redis.type(key)).decode() for key in keys}  # type: ignore[arg-type]
    return sum(int(_COUNTED[kind](redis, key)) for key, kind in kinds.items() if kind in _COUNTED)


# The queue ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShopQueue:
    """The queue of a shop; `why` says what keeps it from being judged, if anything does, and
    `entry_ms` when each order was put into it."""

    queue: Queue = field(default_factory=Queue)
    why: str = ""
    entry_ms: Mapping[int, int] = field(default_factory=dict)


def read_shop_queue(
    redis: Redis | None, books: Books, since: str, names: dict[int, str]
) -> ShopQueue:
    """The queue after the entry `since`."""
    kept = books.redis
    if kept is None or not kept.queue:
        return ShopQueue(why="[books] names no queue that could be read")
    if redis is None:
        return ShopQueue(why="Redis is not given (--books-redis-url)")
    if kept.list_:
        left = Backlog(undelivered=_length(redis, kept.list_))
        return ShopQueue(Queue(exists=True, stream=kept.queue, backlog=left))
    info = read_info(redis, kept.stream)
    if info is None:
        gone = Queue(exists=False, stream=kept.stream)
        return ShopQueue(gone, why=f"there is no stream {kept.stream}")
    return _stream(redis, kept, info, since, names)


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
) -> QueueEntry:
    told = {name: fields.get(there.encode()) for name, there in called.items()}
    ids = {name: numbered(_text(raw), names) if raw else None for name, raw in told.items()}
    return QueueEntry(entry, ids.get("id"), ids.get("user"), ids.get("voucher"))


def _noted(entry: QueueEntry, note: str) -> QueueEntry:
    return QueueEntry(entry.entry, entry.order, entry.user, entry.voucher, note)


def _stuck(pending: Mapping[str, Any], entries: Mapping[str, QueueEntry]) -> QueueEntry:
    entry = bytes(pending["message_id"]).decode()
    note = (
        f"pending with {bytes(pending['consumer']).decode()} for "
        f"{pending['time_since_delivered'] / 1000:.0f} s after "
        f"{pending['times_delivered']} deliveries"
    )
    return _noted(entries.get(entry) or QueueEntry(entry), note)


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

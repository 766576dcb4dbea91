"""The order queue: what the worker was not given, has not acknowledged, or set aside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from flashsale import keys
from flashsale.model import parse_id

BEGINNING = "0-0"
_PAGE = 1_000
_NAMED_MAX = 20
_DEAD_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a stream; the ids are None where its fields do not hold one."""

    entry: str
    order: int | None = None
    user: int | None = None
    voucher: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The workers' consumer group. `read` is None where Redis has lost count."""

    last_delivered: str
    read: int | None
    lag: int | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many entries have still to become rows."""

    undelivered: int = 0
    pending: int = 0

    @property
    def total(self) -> int:
        """Undelivered and pending together."""
        return self.undelivered + self.pending


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue at one instant, as far as it was filled after a given entry.

    `stuck` names the first entries that are pending or undelivered, `trimmed` counts entries that
    were removed before the group was given them, `dead` are dead letters of the sales asked for.
    """

    exists: bool = False
    last_entry: str = BEGINNING
    backlog: Backlog = Backlog()
    stuck: tuple[Entry, ...] = ()
    trimmed: int = 0
    dead: tuple[Entry, ...] = ()
    dead_total: int = 0
    dead_last: str = BEGINNING
    dead_reasons: Mapping[int, str] = field(default_factory=dict)


def read_backlog(ledger: Redis, since: str = BEGINNING) -> Backlog:
    """What is left to do, of entries after `since` where they are pending."""
    info = _stream_info(ledger, keys.STREAM_ORDERS)
    if info is None:
        return Backlog()
    group = _group(ledger)
    if group is None:
        return Backlog(undelivered=_count_after(ledger, since))
    return Backlog(_undelivered(ledger, group), len(_pending(ledger, since)))


def read_queue(
    ledger: Redis, vouchers: frozenset[int], since: str = BEGINNING, dead_since: str = BEGINNING
) -> Queue:
    """The whole queue. Dead letters count from `dead_since`, if of `vouchers` or of no voucher."""
    dead, dead_total = _dead_letters(ledger, vouchers, dead_since)
    dead_info = _stream_info(ledger, keys.STREAM_DEAD) or {}
    info = _stream_info(ledger, keys.STREAM_ORDERS)
    group = _group(ledger) if info else None
    pending = _pending(ledger, since) if group else []
    after = group.last_delivered if group else since
    waiting = _count_after(ledger, after) if info else 0
    unread = [_entry(e[0], e[1], "never delivered") for e in _page_after(ledger, after, _NAMED_MAX)]
    return Queue(
        exists=info is not None,
        last_entry=_id(info, "last-generated-id"),
        backlog=Backlog(waiting, len(pending)),
        stuck=(*(_stuck(ledger, p) for p in pending[:_NAMED_MAX]), *unread)[:_NAMED_MAX],
        trimmed=_trimmed(info, group, waiting) if info and group else 0,
        dead=dead,
        dead_total=dead_total,
        dead_last=_id(dead_info, "last-generated-id"),
        dead_reasons={letter.order: letter.note for letter in dead if letter.order},
    )


def has_entries(ledger: Redis, vouchers: frozenset[int], since: str) -> bool:
    """True where an order for one of `vouchers` was queued after the entry `since`."""
    return any(
        _entry(*entry).voucher in vouchers
        for page in _pages(ledger, keys.STREAM_ORDERS, since)
        for entry in page
    )


def _stream_info(ledger: Redis, stream: str) -> Mapping[str, Any] | None:
    try:
        info: Any = ledger.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    return dict(info)


def _id(info: Mapping[str, Any] | None, name: str) -> str:
    return bytes(info[name]).decode() if info else BEGINNING


def _group(ledger: Redis) -> Group | None:
    groups: Any = ledger.xinfo_groups(keys.STREAM_ORDERS)
    for group in groups:
        if group["name"] == keys.GROUP.encode():
            delivered = group["last-delivered-id"].decode()
            return Group(delivered, group.get("entries-read"), group.get("lag"))
    return None


def _undelivered(ledger: Redis, group: Group) -> int:
    """Redis' own lag where it has one, since counting a long queue at every look is dear.

    A lag with nothing behind it is no work left to do but work that was taken away: see _trimmed.
    """
    if not _page_after(ledger, group.last_delivered, 1):
        return 0
    return group.lag or _count_after(ledger, group.last_delivered)


def _trimmed(info: Mapping[str, Any], group: Group, waiting: int) -> int:
    """How many entries vanished between the group's last delivered one and the stream's end.

    Entries ever added, less those the group has read, should all be waiting. Where Redis has lost
    count, an end that is newer than anything delivered, with nothing waiting, still tells of one.
    """
    if group.read is not None:
        return max(0, int(info["entries-added"]) - group.read - waiting)
    newest = _id(info, "last-generated-id")
    return int(not waiting and position(newest) > position(group.last_delivered))


def position(entry: str) -> tuple[int, int]:
    """An entry id as numbers that compare."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)


def _pages(ledger: Redis, stream: str, after: str) -> Iterator[list[Any]]:
    while page := _page_after(ledger, after, _PAGE, stream):
        yield page
        after = page[-1][0].decode()


def _page_after(
    ledger: Redis, after: str, count: int, stream: str = keys.STREAM_ORDERS
) -> list[Any]:
    page: Any = ledger.xrange(stream, min=f"({after}", count=count)
    return list(page)


def _count_after(ledger: Redis, after: str) -> int:
    return sum(len(page) for page in _pages(ledger, keys.STREAM_ORDERS, after))


def _pending(ledger: Redis, since: str) -> list[Any]:
    found: list[Any] = []
    while True:
        page: Any = ledger.xpending_range(
            keys.STREAM_ORDERS, keys.GROUP, min=f"({since}", max="+", count=_PAGE
        )
        found += page
        if len(page) < _PAGE:
            return found
        since = page[-1]["message_id"].decode()


def _stuck(ledger: Redis, pending: Mapping[str, Any]) -> Entry:
    entry = pending["message_id"].decode()
    note = (
        f"pending with {pending['consumer'].decode()} for "
        f"{pending['time_since_delivered'] / 1000:.0f} s after "
        f"{pending['times_delivered']} deliveries"
    )
    body: Any = ledger.xrange(keys.STREAM_ORDERS, entry, entry)
    if not body:
        return Entry(entry, note=f"{note}, its content trimmed")
    return _entry(body[0][0], body[0][1], note)


def _entry(raw_entry: bytes, fields: Mapping[bytes, bytes], note: str = "") -> Entry:
    order, user, voucher = (
        parse_id(fields.get(name, b"").decode("utf-8", "replace"))
        for name in (b"id", b"userId", b"voucherId")
    )
    return Entry(raw_entry.decode(), order, user, voucher, note)


def _dead_letters(
    ledger: Redis, vouchers: frozenset[int], since: str
) -> tuple[tuple[Entry, ...], int]:
    letters: list[Entry] = []
    total = 0
    for page in _pages(ledger, keys.STREAM_DEAD, since):
        for raw_entry, fields in page:
            reason = fields.get(b"reason", b"no reason given").decode("utf-8", "replace")
            letter = _entry(raw_entry, fields, reason)
            if letter.voucher is None or letter.voucher in vouchers:
                total += 1
                letters += [letter] if total <= _DEAD_MAX else []
    return tuple(letters), total

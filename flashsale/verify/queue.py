"""The order queue, as the judge reads it: the stream's entries page by page, what no worker was
given or has acknowledged, what was set aside, and the wait until it is empty.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from flashsale import keys
from flashsale.keys import Lane
from flashsale.model import parse_id
from flashsale.store_urls import lane_of

BEGINNING = "0-0"
NOW = "+"
"""As far as the stream goes."""
LAST = f"{2**64 - 1}-{2**64 - 1}"
"""The last id that there can be: nothing comes after it, and Redis calls asking for it an error."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """The workers' consumer group. `read` is None where Redis has lost count."""

    last_delivered: str
    read: int | None
    lag: int | None


def position(entry: str) -> tuple[int, int]:
    """An entry id as numbers that compare."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)


_BETWEEN = " "
"""A ledger of several lanes has a stream in each: a place in it is an id for each, in the lanes'
order, with this between them."""


def entry_id(text: str) -> str:
    """`text`, if it names an entry, or one of each lane. Raises ValueError."""
    for one in text.split(_BETWEEN):
        position(one)
    return text


def each_lane(change: Callable[[str], str], entry: str) -> str:
    """What `change` makes of an entry id, or of each lane's. Pure."""
    return _BETWEEN.join(map(change, entry.split(_BETWEEN)))


def is_past(entry: str, until: str) -> bool:
    """True for an entry that was added after `until`; of several lanes, where one of them was."""
    return until != NOW and any(
        position(one) > position(end) for one, end in _lane_by_lane(entry, until)
    )


def goes_back(later: str, earlier: str) -> bool:
    """True where a stream, or one of several lanes, has come less far later than it had before."""
    return any(position(one) < position(end) for one, end in _lane_by_lane(later, earlier))


def _lane_by_lane(entry: str, other: str) -> list[tuple[str, str]]:
    ones, others = entry.split(_BETWEEN), other.split(_BETWEEN)
    count = max(len(ones), len(others))  # a beginning is every lane's
    return list(zip(*(each * (count // len(each)) for each in (ones, others)), strict=True))


def read_info(ledger: Redis, stream: str) -> Mapping[str, Any] | None:
    """XINFO STREAM, None where there is no such stream."""
    try:
        info: Any = ledger.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    return dict(info)


def last_entry(info: Mapping[str, Any] | None) -> str:
    """The id of the newest entry that ever was in a stream."""
    return bytes(info["last-generated-id"]).decode() if info else BEGINNING


def first_entry(info: Mapping[str, Any] | None) -> str:
    """The id of the oldest entry that is still in a stream; where there is none, of the newest that
    ever was."""
    first = info["first-entry"] if info else None
    return bytes(first[0]).decode() if first else last_entry(info)


def added(info: Mapping[str, Any] | None) -> int | None:
    """How many entries ever were in a stream; None where there is none."""
    return int(info["entries-added"]) if info else None


def read_group(ledger: Redis) -> Group | None:
    """The workers' group of the stream of orders."""
    groups: Any = ledger.xinfo_groups(lane_of(ledger).stream_orders)
    for group in groups:
        if group["name"] == keys.GROUP.encode():
            delivered = group["last-delivered-id"].decode()
            return Group(delivered, group.get("entries-read"), group.get("lag"))
    return None


def page(ledger: Redis, stream: str, after: str, until: str, count: int = _PAGE) -> list[Any]:
    """The first entries after `after` up to `until`: (id, fields) of each."""
    if position(after) >= position(LAST if until == NOW else until):
        return []
    found: Any = ledger.xrange(stream, min=f"({after}", max=until, count=count)
    return list(found)


def pages(ledger: Redis, stream: str, after: str, until: str = NOW) -> Iterator[list[Any]]:
    """All of them, a thousand at a time."""
    while found := page(ledger, stream, after, until):
        yield found
        after = found[-1][0].decode()


def count(ledger: Redis, after: str, until: str = NOW) -> int:
    """How many orders are in the stream between the two."""
    return sum(len(found) for found in pages(ledger, lane_of(ledger).stream_orders, after, until))


def read_pending(ledger: Redis, since: str, until: str = NOW) -> list[Any]:
    """What workers were given and have not acknowledged, between the two, as XPENDING tells it."""
    every: list[Any] = []
    while position(since) < position(LAST if until == NOW else until):
        found: Any = ledger.xpending_range(
            lane_of(ledger).stream_orders, keys.GROUP, min=f"({since}", max=until, count=_PAGE
        )
        every += found
        if len(found) < _PAGE:
            break
        since = found[-1]["message_id"].decode()
    return every


_NO_GROUP = "read or not: its group is gone, so nobody can tell"
_NAMED_MAX = 20
_DEAD_MAX = 1_000


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """An entry of a stream; the ids are None where its fields do not hold one.

    `origin` is what a dead letter was called in the stream of orders, None where it does not tell.
    One that `is_bare` holds nothing else: a worker's note that an entry it was given is gone.
    """

    entry: str
    order: int | None = None
    user: int | None = None
    voucher: int | None = None
    note: str = ""
    origin: str | None = None
    is_bare: bool = False


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
class Span:
    """The part of the queue that is asked about: after two entries, up to one.

    `dead` is where the dead letters begin; a dead letter ends where its order's entry does.
    """

    since: str = BEGINNING
    dead: str = BEGINNING
    until: str = NOW

    def of(self, lane: Lane) -> "Span":
        """The part of it that is in a lane."""
        if lane.lanes == 1:
            return self
        marks = (mark.split(_BETWEEN) for mark in (self.since, self.dead, self.until))
        return Span(*(each[lane.number] if len(each) > 1 else each[0] for each in marks))


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue at one instant, as far as it was filled within a span.

    `stuck` names the first entries that are pending or undelivered, `trimmed` counts entries that
    were removed before the group was given them, `dead` are dead letters of the sales asked for,
    `lost_total` counts the notes of workers that an entry which they were given is gone.
    `newer` are orders of these sales, and their users, that were queued after the span. `added`
    counts entries that ever were; `first_entry` is the oldest that is still there.
    """

    exists: bool = False
    stream: str = keys.STREAM_ORDERS
    group: str = keys.GROUP
    has_group: bool = True
    added: int | None = None
    first_entry: str = BEGINNING
    last_entry: str = BEGINNING
    backlog: Backlog = Backlog()
    stuck: tuple[QueueEntry, ...] = ()
    trimmed: int = 0
    dead: tuple[QueueEntry, ...] = ()
    dead_total: int = 0
    lost_total: int = 0
    dead_last: str = BEGINNING
    dead_reasons: Mapping[int, str] = field(default_factory=dict)
    newer: Mapping[int, int] = field(default_factory=dict)


Lanes = Sequence[Redis]
"""A client for each lane of the ledger: one, where it is on one server."""


def read_backlog(lanes: Lanes, span: Span) -> Backlog:
    """What is left to do of the span in all lanes."""
    every = [_backlog(ledger, span.of(lane_of(ledger))) for ledger in lanes]
    return Backlog(sum(one.undelivered for one in every), sum(one.pending for one in every))


def _backlog(ledger: Redis, span: Span) -> Backlog:
    """What is left to do of the span; what is not delivered counts from the span's end back."""
    info = read_info(ledger, lane_of(ledger).stream_orders)
    if info is None:
        return Backlog()
    group = read_group(ledger)
    if group is None:
        return Backlog(undelivered=count(ledger, span.since, span.until))
    if is_past(last_entry(info), span.until):
        undelivered = count(ledger, group.last_delivered, span.until)
    else:
        undelivered = _undelivered(ledger, group)
    return Backlog(undelivered, len(read_pending(ledger, span.since, span.until)))


def read_queue(lanes: Lanes, vouchers: frozenset[int], span: Span) -> Queue:
    """The whole queue, all lanes together. Dead letters count if of `vouchers` or of no voucher."""
    return together([_queue(ledger, vouchers, span.of(lane_of(ledger))) for ledger in lanes])


def together(queues: Sequence[Queue]) -> Queue:
    """The queues of all lanes as one."""
    if len(queues) == 1:
        return queues[0]
    counts = [queue.added for queue in queues if queue.added is not None]
    return Queue(
        exists=all(queue.exists for queue in queues),
        has_group=all(queue.has_group for queue in queues),
        added=sum(counts) if len(counts) == len(queues) else None,
        first_entry=_BETWEEN.join(queue.first_entry for queue in queues),
        last_entry=_BETWEEN.join(queue.last_entry for queue in queues),
        backlog=Backlog(
            sum(queue.backlog.undelivered for queue in queues),
            sum(queue.backlog.pending for queue in queues),
        ),
        stuck=tuple(entry for queue in queues for entry in queue.stuck)[:_NAMED_MAX],
        trimmed=sum(queue.trimmed for queue in queues),
        dead=tuple(letter for queue in queues for letter in queue.dead)[:_DEAD_MAX],
        dead_total=sum(queue.dead_total for queue in queues),
        lost_total=sum(queue.lost_total for queue in queues),
        dead_last=_BETWEEN.join(queue.dead_last for queue in queues),
        dead_reasons={
            order: note for queue in queues for order, note in queue.dead_reasons.items()
        },
        newer={order: user for queue in queues for order, user in queue.newer.items()},
    )


def _queue(ledger: Redis, vouchers: frozenset[int], span: Span) -> Queue:
    """That of one lane. Dead letters count if of `vouchers` or of no voucher."""
    letters = _read_letters(ledger, vouchers, span)
    dead_info = read_info(ledger, lane_of(ledger).stream_dead)
    info = read_info(ledger, lane_of(ledger).stream_orders)
    group = read_group(ledger) if info else None
    pending = read_pending(ledger, span.since, span.until) if group else []
    after = group.last_delivered if group else span.since
    waiting = count(ledger, after) if info else 0
    unread = page(ledger, lane_of(ledger).stream_orders, after, span.until, _NAMED_MAX)
    return Queue(
        exists=info is not None,
        has_group=group is not None or info is None,
        added=added(info),
        first_entry=first_entry(info),
        last_entry=last_entry(info),
        backlog=Backlog(
            waiting if span.until == NOW else count(ledger, after, span.until), len(pending)
        ),
        stuck=(
            *(_stuck(ledger, p) for p in pending[:_NAMED_MAX]),
            *(_entry(e[0], e[1], "never delivered" if group else _NO_GROUP) for e in unread),
        )[:_NAMED_MAX],
        trimmed=_trimmed(info, group, waiting) if info and group else 0,
        dead=tuple(letters.named),
        dead_total=letters.total,
        lost_total=letters.lost,
        dead_last=last_entry(dead_info),
        dead_reasons={letter.order: letter.note for letter in letters.named if letter.order},
        newer={**_newer(ledger, vouchers, span.until), **letters.newer},
    )


def has_entries(lanes: Lanes, vouchers: frozenset[int], since: str) -> bool:
    """True where an order for one of `vouchers` was queued after the entry `since`."""
    return any(
        True
        for ledger in lanes
        for _ in _orders_after(ledger, vouchers, Span(since).of(lane_of(ledger)).since)
    )


def _orders_after(ledger: Redis, vouchers: frozenset[int], after: str) -> Iterator[QueueEntry]:
    for found in pages(ledger, lane_of(ledger).stream_orders, after):
        yield from (e for e in (_entry(*raw) for raw in found) if e.voucher in vouchers)


def _newer(ledger: Redis, vouchers: frozenset[int], until: str) -> dict[int, int]:
    """Orders after `until` and their users, as far as they have not been trimmed."""
    if until == NOW:
        return {}
    found = _orders_after(ledger, vouchers, until)
    return {entry.order: entry.user for entry in found if entry.order and entry.user}


Sighting = tuple[int, int]
"""When an order was sold: by the id of its entry and by the script, Unix ms. Both are the ledger's;
one that was queued again has a later id, one that was sold while the clock was set back an earlier
time in its entry."""


def read_sightings(lanes: Lanes, vouchers: frozenset[int], span: Span) -> dict[int, Sighting]:
    """Of each order of these sales whose entry is in the stream: when it was sold."""
    seen: dict[int, Sighting] = {}
    every = (
        found
        for ledger in lanes
        for found in pages(ledger, lane_of(ledger).stream_orders, span.of(lane_of(ledger)).since)
    )
    for found in every:
        for raw_entry, fields in found:
            entry = _entry(raw_entry, fields)
            if entry.voucher in vouchers and entry.order and entry.order not in seen:
                queued_ms = position(entry.entry)[0]
                sold_ms = parse_id(_text(fields, b"ms") or "")
                seen[entry.order] = (queued_ms, sold_ms or queued_ms)
    return seen


def _undelivered(ledger: Redis, group: Group) -> int:
    """Redis' own lag where it has one, since counting a long queue at every look is dear.

    A lag with nothing behind it is no work left to do but work that was taken away: see _trimmed.
    """
    if not page(ledger, lane_of(ledger).stream_orders, group.last_delivered, NOW, 1):
        return 0
    return group.lag or count(ledger, group.last_delivered)


def _trimmed(info: Mapping[str, Any], group: Group, waiting: int) -> int:
    """How many entries vanished between the group's last delivered one and the stream's end.

    Entries ever added, less those the group has read, should all be waiting. A replica that took
    over has counted fewer as read than its master had, so that no more can have vanished unread
    than the stream has lost in all. Where Redis has lost count, an end that is newer than anything
    delivered, with nothing waiting, still tells of one.
    """
    if group.read is not None:
        ever = int(info["entries-added"])
        return max(0, min(ever - group.read - waiting, ever - int(info["length"])))
    newest = last_entry(info)
    return int(not waiting and position(newest) > position(group.last_delivered))


def _stuck(ledger: Redis, pending: Mapping[str, Any]) -> QueueEntry:
    entry = pending["message_id"].decode()
    note = (
        f"pending with {pending['consumer'].decode()} for "
        f"{pending['time_since_delivered'] / 1000:.0f} s after "
        f"{pending['times_delivered']} deliveries"
    )
    body: Any = ledger.xrange(lane_of(ledger).stream_orders, entry, entry)
    if not body:
        return QueueEntry(entry, note=f"{note}, its content trimmed")
    return _entry(body[0][0], body[0][1], note)


def _entry(raw_entry: bytes, fields: Mapping[bytes, bytes], note: str = "") -> QueueEntry:
    order, user, voucher = (
        parse_id(_text(fields, name) or "") for name in (b"id", b"userId", b"voucherId")
    )
    return QueueEntry(raw_entry.decode(), order, user, voucher, note)


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str | None:
    return fields[name].decode("utf-8", "replace") if name in fields else None


@dataclass
class _Letters:
    """Dead letters of the span, the first of them by name, and the newer ones' orders."""

    named: list[QueueEntry] = field(default_factory=list)
    total: int = 0
    lost: int = 0  # entries that are noted to be gone
    newer: dict[int, int] = field(default_factory=dict)


def _read_letters(ledger: Redis, vouchers: frozenset[int], span: Span) -> _Letters:
    letters = _Letters()
    for letter in _dead_letters(ledger, span.dead):
        if letter.voucher is not None and letter.voucher not in vouchers:
            continue
        if letter.is_bare:
            letters.lost += 0 if _is_newer(letter, span.until) else 1
        elif not _is_newer(letter, span.until):
            letters.total += 1
            letters.named += [letter] if letters.total <= _DEAD_MAX else []
        elif letter.order and letter.user:
            letters.newer[letter.order] = letter.user
    return letters


def _dead_letters(ledger: Redis, since: str) -> Iterator[QueueEntry]:
    for found in pages(ledger, lane_of(ledger).stream_dead, since):
        for raw_entry, fields in found:
            letter = _entry(raw_entry, fields, _text(fields, b"reason") or "no reason given")
            is_bare = fields.keys() <= {b"entry", b"reason"}
            yield replace(letter, origin=_text(fields, b"entry"), is_bare=is_bare)


def _is_newer(letter: QueueEntry, until: str) -> bool:
    try:
        return is_past(letter.origin or BEGINNING, until)
    except ValueError:  # whoever wrote it, it is not known to be of a later run
        return False


_LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class Patience:
    """Ends a wait: nothing left, or nothing done for `timeout_s`.

    Progress is a backlog smaller than it ever was, so that a queue which is filled as fast as it
    is emptied does not keep the judge for ever. Pure: the caller brings the time.
    """

    timeout_s: float
    least: int | None = None
    since_s: float = 0.0

    def is_over(self, left: int, now_s: float) -> bool:
        """True where it is time to stop waiting."""
        if self.least is None or left < self.least:
            self.least, self.since_s = left, now_s
        return left == 0 or now_s - self.since_s >= self.timeout_s


def drain(
    lanes: Lanes,
    span: Span,
    timeout_s: float,
    on_look: Callable[[int], None] = lambda left: None,
) -> float:
    """Wait until every entry of `span` has left the queue; the seconds that it took.

    Gives up when nothing moves for `timeout_s`: the queue's own check then tells what is stuck.
    """
    patience = Patience(timeout_s)
    start_s = time.monotonic()
    while True:
        left = read_backlog(lanes, span).total
        on_look(left)
        now_s = time.monotonic()
        if patience.is_over(left, now_s):
            return now_s - start_s
        time.sleep(_LOOK_EVERY_S)

"""The order queue: what the worker was not given, has not acknowledged, or set aside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from redis import Redis

from flashsale import keys
from flashsale.model import parse_id
from flashsale.verify.stream import (
    BEGINNING,
    NOW,
    Group,
    count,
    is_past,
    last_entry,
    page,
    pages,
    position,
    read_group,
    read_info,
    read_pending,
)

_NAMED_MAX = 20
_DEAD_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a stream; the ids are None where its fields do not hold one.

    `origin` is what a dead letter was called in the stream of orders, None where it does not tell.
    """

    entry: str
    order: int | None = None
    user: int | None = None
    voucher: int | None = None
    note: str = ""
    origin: str | None = None


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


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue at one instant, as far as it was filled within a span.

    `stuck` names the first entries that are pending or undelivered, `trimmed` counts entries that
    were removed before the group was given them, `dead` are dead letters of the sales asked for.
    `newer` are orders of these sales, and their users, that were queued after the span.
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
    newer: Mapping[int, int] = field(default_factory=dict)


def read_backlog(ledger: Redis, span: Span) -> Backlog:
    """What is left to do of the span; what is not delivered counts from the span's end back."""
    info = read_info(ledger, keys.STREAM_ORDERS)
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


def read_queue(ledger: Redis, vouchers: frozenset[int], span: Span) -> Queue:
    """The whole queue. Dead letters count if of `vouchers` or of no voucher."""
    letters = _read_letters(ledger, vouchers, span)
    dead_info = read_info(ledger, keys.STREAM_DEAD)
    info = read_info(ledger, keys.STREAM_ORDERS)
    group = read_group(ledger) if info else None
    pending = read_pending(ledger, span.since, span.until) if group else []
    after = group.last_delivered if group else span.since
    waiting = count(ledger, after) if info else 0
    unread = page(ledger, keys.STREAM_ORDERS, after, span.until, _NAMED_MAX)
    return Queue(
        exists=info is not None,
        last_entry=last_entry(info),
        backlog=Backlog(
            waiting if span.until == NOW else count(ledger, after, span.until), len(pending)
        ),
        stuck=(
            *(_stuck(ledger, p) for p in pending[:_NAMED_MAX]),
            *(_entry(e[0], e[1], "never delivered") for e in unread),
        )[:_NAMED_MAX],
        trimmed=_trimmed(info, group, waiting) if info and group else 0,
        dead=tuple(letters.named),
        dead_total=letters.total,
        dead_last=last_entry(dead_info),
        dead_reasons={letter.order: letter.note for letter in letters.named if letter.order},
        newer={**_newer(ledger, vouchers, span.until), **letters.newer},
    )


def has_entries(ledger: Redis, vouchers: frozenset[int], since: str) -> bool:
    """True where an order for one of `vouchers` was queued after the entry `since`."""
    return any(True for _ in _orders_after(ledger, vouchers, since))


def _orders_after(ledger: Redis, vouchers: frozenset[int], after: str) -> Iterator[Entry]:
    for found in pages(ledger, keys.STREAM_ORDERS, after):
        yield from (e for e in (_entry(*raw) for raw in found) if e.voucher in vouchers)


def _newer(ledger: Redis, vouchers: frozenset[int], until: str) -> dict[int, int]:
    """Orders after `until` and their users, as far as they have not been trimmed."""
    if until == NOW:
        return {}
    found = _orders_after(ledger, vouchers, until)
    return {entry.order: entry.user for entry in found if entry.order and entry.user}


def _undelivered(ledger: Redis, group: Group) -> int:
    """Redis' own lag where it has one, since counting a long queue at every look is dear.

    A lag with nothing behind it is no work left to do but work that was taken away: see _trimmed.
    """
    if not page(ledger, keys.STREAM_ORDERS, group.last_delivered, NOW, 1):
        return 0
    return group.lag or count(ledger, group.last_delivered)


def _trimmed(info: Mapping[str, Any], group: Group, waiting: int) -> int:
    """How many entries vanished between the group's last delivered one and the stream's end.

    Entries ever added, less those the group has read, should all be waiting. Where Redis has lost
    count, an end that is newer than anything delivered, with nothing waiting, still tells of one.
    """
    if group.read is not None:
        return max(0, int(info["entries-added"]) - group.read - waiting)
    newest = last_entry(info)
    return int(not waiting and position(newest) > position(group.last_delivered))


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
        parse_id(_text(fields, name) or "") for name in (b"id", b"userId", b"voucherId")
    )
    return Entry(raw_entry.decode(), order, user, voucher, note)


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str | None:
    return fields[name].decode("utf-8", "replace") if name in fields else None


@dataclass
class _Letters:
    """Dead letters of the span, the first of them by name, and the newer ones' orders."""

    named: list[Entry] = field(default_factory=list)
    total: int = 0
    newer: dict[int, int] = field(default_factory=dict)


def _read_letters(ledger: Redis, vouchers: frozenset[int], span: Span) -> _Letters:
    letters = _Letters()
    for letter in _dead_letters(ledger, span.dead):
        if letter.voucher is not None and letter.voucher not in vouchers:
            continue
        if not _is_newer(letter, span.until):
            letters.total += 1
            letters.named += [letter] if letters.total <= _DEAD_MAX else []
        elif letter.order and letter.user:
            letters.newer[letter.order] = letter.user
    return letters


def _dead_letters(ledger: Redis, since: str) -> Iterator[Entry]:
    for found in pages(ledger, keys.STREAM_DEAD, since):
        for raw_entry, fields in found:
            letter = _entry(raw_entry, fields, _text(fields, b"reason") or "no reason given")
            yield replace(letter, origin=_text(fields, b"entry"))


def _is_newer(letter: Entry, until: str) -> bool:
    try:
        return is_past(letter.origin or BEGINNING, until)
    except ValueError:  # whoever wrote it, it is not known to be of a later run
        return False

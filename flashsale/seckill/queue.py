"""What is on its way from the ledger to MySQL, and accepted orders that have left that way.

An accepted order has a receipt for as long as it holds its unit, whatever becomes of its entry in
the stream. So an order whose entry is gone (trimmed, deleted, flushed) is found by its receipt,
and written to the stream again: a worker that meets it twice finds the row of the first time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from redis import Redis

from flashsale import keys
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.seckill.ids import EPOCH_S
from flashsale.storage.roles import Rejected, call, evaluate
from flashsale.store_urls import lane_of

T = TypeVar("T")
_REQUEUE = script("order_requeue")
_PAGE = 1_000
_COUNTED_MAX = 10_000
"""Entries that are counted one by one where Redis has lost count; more are left uncounted."""


class Accepted(NamedTuple):
    """An order that was accepted: in a receipt, or in an entry of the stream."""

    order_id: int
    user_id: int
    voucher_id: int


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """The workers' group. `undelivered` is None where it is not known: Redis has lost count, and
    there are too many to count them. Without a group everything is undelivered. `gone` are those
    pending whose entries were trimmed: their worker may still write them, and nobody else can."""

    exists: bool = False
    undelivered: int | None = 0
    pending: int = 0
    delivered: str = "0-0"
    gone: int = 0

    @property
    def outstanding(self) -> int | None:
        """Entries that may be no rows yet."""
        if self.undelivered is None:
            return None
        return self.undelivered + self.pending - self.gone


def read_group(ledger: Redis) -> GroupPosition:
    """How the group is. Raises Unavailable or Indeterminate."""
    try:
        groups = call(ledger.xinfo_groups, lane_of(ledger).stream_orders)
    except Rejected:  # there is no stream: nothing was ever sold, or it is gone
        return GroupPosition()
    stream = call(ledger.xinfo_stream, lane_of(ledger).stream_orders)
    length, first, last = stream["length"], stream["first-entry"], stream["last-entry"]
    for group in groups:
        if group["name"] == keys.GROUP:
            delivered = str(group["last-delivered-id"])
            lag = group["lag"]
            if not last or _position(last[0]) <= _position(delivered):
                left: int | None = (
                    0  # whatever the lag: entries that were trimmed unread stay in it
                )
            else:
                left = min(int(lag), length) if lag is not None else _counted(ledger, delivered)
            pending = int(group["pending"])
            are_gone = not first or _position(first[0]) > _position(delivered)
            return GroupPosition(True, left, pending, delivered, pending if are_gone else 0)
    return GroupPosition(False, length)


def _counted(ledger: Redis, delivered: str) -> int | None:
    """Entries after `delivered`, one by one; None where there are more than are counted."""
    count = 0
    for _ in entries(ledger, delivered):
        count += 1
        if count > _COUNTED_MAX:
            return None
    return count


def entries(ledger: Redis, after: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The entries of the stream after this one, a page at a time."""
    while True:
        page = cast(
            "list[tuple[str, Mapping[str, str]]]",
            call(ledger.xrange, lane_of(ledger).stream_orders, f"({after}", "+", _PAGE),
        )
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1][0]


@dataclass(frozen=True, slots=True)
class QueuedOrders:
    """The orders that workers have still to write, by id, and when the oldest entry was added."""

    orders: Mapping[int, Accepted] = field(default_factory=dict)
    oldest_ms: int | None = None


def read_queue(ledger: Redis) -> QueuedOrders:
    """Every order that is pending or undelivered. Raises Unavailable or Indeterminate."""
    group = read_group(ledger)
    pending = set(_pending(ledger)) if group.pending else set()
    delivered = _position(group.delivered)
    start = _before(min(pending, key=_position)) if pending else group.delivered
    orders: dict[int, Accepted] = {}
    oldest_ms = None
    for entry_id, fields in entries(ledger, start):
        if entry_id not in pending and _position(entry_id) <= delivered:
            continue
        if oldest_ms is None:
            oldest_ms = _position(entry_id)[0]
        accepted = read_accepted(fields or {})
        if accepted is not None:
            orders[accepted.order_id] = accepted
    return QueuedOrders(orders, oldest_ms)


def read_accepted(fields: Mapping[str, str]) -> Accepted | None:
    """The order in an entry, if there is one. Pure."""
    numbers = [parse_id(fields.get(name, "")) for name in ("id", "userId", "voucherId")]
    return Accepted(*cast("list[int]", numbers)) if all(numbers) else None


def _pending(ledger: Redis) -> Iterator[str]:
    """The ids of all entries that were given to a worker and not acknowledged."""
    after = "-"
    while True:
        page = cast(
            "list[dict[str, Any]]",
            call(
                lambda after=after: ledger.xpending_range(  # type: ignore[misc]
                    lane_of(ledger).stream_orders, keys.GROUP, min=after, max="+", count=_PAGE
                )
            ),
        )
        yield from (str(one["message_id"]) for one in page)
        if len(page) < _PAGE:
            return
        after = f"({page[-1]['message_id']}"


def _position(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def _before(entry_id: str) -> str:
    """The id right before this one, for a range that begins after it."""
    ms, seq = _position(entry_id)
    return f"{ms}-{seq - 1}" if seq else f"{max(ms - 1, 0)}-{2**64 - 1 if ms else 0}"


def read_receipts(ledger: Redis, voucher_id: int) -> dict[int, int]:
    """The receipts of a sale: user → order; what names none is left out."""
    return receipts_in(raw_receipts(ledger, voucher_id))


def raw_receipts(ledger: Redis, voucher_id: int) -> dict[str, str]:
    """The receipts of a sale as they stand."""
    name = lane_of(ledger).seckill_receipt(voucher_id)
    return call(lambda: dict(ledger.hscan_iter(name, count=_PAGE)))


def receipts_in(raw: Mapping[str, str]) -> dict[int, int]:
    """Those that name a user and an order, as we spell them. Pure."""
    pairs = ((user, parse_id(user), parse_id(order)) for user, order in raw.items())
    return {
        number: order for user, number, order in pairs if number and order and user == str(number)
    }


def id_ms(order_id: int) -> int:
    """The second in which an order id was made, in Unix ms: when it was accepted, but for the
    claim's time-out. Pure."""
    return ((order_id >> 32) + EPOCH_S) * 1_000


def requeue(
    ledger: Redis, orders: Iterable[Accepted], window_ms: Mapping[int, tuple[int, int]]
) -> int:
    """Write these to the stream again, each only if its receipt still says so; how many were.

    An order is dated by its id, within its sale's window (begin and end by voucher).
    """
    by_voucher: dict[int, list[Accepted]] = {}
    for order in orders:
        by_voucher.setdefault(order.voucher_id, []).append(order)
    written = 0
    for voucher_id, accepted in by_voucher.items():
        begin_ms, end_ms = window_ms.get(voucher_id, (1, 2**53))
        lane = lane_of(ledger)
        names = (lane.seckill_receipt(voucher_id), lane.dead_orders, lane.stream_orders)
        for some in portions(accepted, _PAGE):
            words: list[int] = [voucher_id]
            for order in some:
                at_ms = min(max(id_ms(order.order_id), begin_ms), end_ms - 1)
                words += (order.user_id, order.order_id, at_ms)
            written += cast(int, evaluate(ledger, Call(_REQUEUE, names, words)))
    return written


def portions(things: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """`things`, at most `size` at a time."""
    rest = iter(things)
    while some := list(islice(rest, size)):
        yield some

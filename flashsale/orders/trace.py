"""Everything that is known about one order: row, receipt, stream, dead letters, journal."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from sqlalchemy import Engine, select

from flashsale import keys
from flashsale.model import LIVE_STATUSES, OrderStatus, PayStatus, parse_id
from flashsale.orders.dead_letters import Letter, read_letters
from flashsale.seckill import journal
from flashsale.seckill.control import loaded_sales
from flashsale.seckill.ids import EPOCH_S
from flashsale.seckill.journal import Line
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Rejected, call
from flashsale.storage.tables import order_return, voucher_order
from flashsale.store_urls import lane_of

_PAGE = 1_000
_EARLY_S = 60
"""How much earlier than its id's second an order's entry may be: two clocks date them."""

PAY_STATUS = {
    PayStatus.UNPAID: "unpaid",
    PayStatus.PAID: "paid",
    PayStatus.USED: "used",
    PayStatus.CANCELLED: "cancelled",
    PayStatus.REFUNDING: "refunding",
    PayStatus.REFUNDED: "refunded",
}
LOST = "LOST"
"""A receipt, and nothing on its way to become a row."""
NOWHERE = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that names the order."""

    voucher_id: int
    user_id: int


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry that holds the order. `consumer` has it and has not acknowledged it."""

    entry_id: str
    user_id: int | None
    voucher_id: int | None
    delivered: bool
    consumer: str | None = None
    idle_ms: int = 0
    deliveries: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it has still to become a row."""
        return not self.delivered or self.consumer is not None


@dataclass(frozen=True, slots=True)
class Trace:
    """All traces of an order. `owed` is a unit that the ledger is still to be given back."""

    order_id: int
    row: Mapping[str, Any] | None
    owed: bool
    receipts: tuple[Receipt, ...]
    entries: tuple[StreamEntry, ...]
    letters: tuple[Letter, ...]
    lines: tuple[Line, ...]

    @property
    def state(self) -> str:
        """CONFIRMED, QUEUED or FAILED as its user is told, else LOST or UNKNOWN."""
        if self.row is not None:
            return OrderStatus.CONFIRMED
        if self.letters:
            return OrderStatus.FAILED
        if any(entry.is_open for entry in self.entries):
            return OrderStatus.QUEUED
        return LOST if self.receipts else NOWHERE

    @property
    def is_live(self) -> bool:
        """Whether a row of it holds a unit."""
        return self.row is not None and self.row["status"] in LIVE_STATUSES


def trace(ledger: Redis, pool: Engine, order_id: int) -> Trace:
    """Look everywhere. Raises Unavailable or Indeterminate."""
    entries = tuple(_entries(ledger, order_id))
    letters = tuple(
        letter
        for letter in read_letters(ledger)
        if (letter.order and letter.order.order_id == order_id)
        or letter.fields.get("id") == str(order_id)
    )
    with transaction(pool) as connection:
        row = connection.execute(
            select(voucher_order).where(voucher_order.c.id == order_id)
        ).first()
        owing = select(order_return.c.order_id).where(order_return.c.order_id == order_id)
        owed = connection.execute(owing).first() is not None
        lines = tuple(journal.of_order(connection, order_id))
    found = None if row is None else dict(row._mapping)
    places = set(_places(found, entries, letters))
    receipts = tuple(_receipts(ledger, order_id, places))
    return Trace(order_id, found, owed, receipts, entries, letters, lines)


def _places(
    row: Mapping[str, Any] | None, entries: Iterable[StreamEntry], letters: Iterable[Letter]
) -> Iterator[tuple[int, int]]:
    """Vouchers and users that the order may be of."""
    if row is not None:
        yield row["voucher_id"], row["user_id"]
    for entry in entries:
        if entry.voucher_id and entry.user_id:
            yield entry.voucher_id, entry.user_id
    for letter in letters:
        if letter.order:
            yield letter.order.voucher_id, letter.order.user_id


def _receipts(ledger: Redis, order_id: int, places: set[tuple[int, int]]) -> Iterator[Receipt]:
    """The receipts of the order: of those it may be of, else of all sales, one after another."""
    wanted = str(order_id)
    for voucher, user in sorted(places):
        key = lane_of(ledger).seckill_receipt(voucher)
        if call(ledger.hget, key, str(user)) == wanted:
            yield Receipt(voucher, user)
    if places:
        return
    for voucher in loaded_sales(ledger):
        yield from _scanned(ledger, voucher, wanted)


def _scanned(ledger: Redis, voucher: int, wanted: str) -> Iterator[Receipt]:
    cursor = 0
    while True:
        found: Any = call(
            ledger.hscan, lane_of(ledger).seckill_receipt(voucher), cursor, count=_PAGE
        )
        cursor = int(found[0])
        for user, order in found[1].items():
            if order == wanted and parse_id(user):
                yield Receipt(voucher, int(user))
        if not cursor:
            return


def _entries(ledger: Redis, order_id: int) -> Iterator[StreamEntry]:
    """From a little before the second of its id on, since a retry is younger than its order."""
    try:
        groups: Any = call(ledger.xinfo_groups, lane_of(ledger).stream_orders)
    except Rejected:  # there is no stream
        return
    delivered = next((g["last-delivered-id"] for g in groups if g["name"] == keys.GROUP), "0-0")
    after = str(max(0, ((order_id >> 32) + EPOCH_S - _EARLY_S) * 1000))
    while True:
        page: Any = call(ledger.xrange, lane_of(ledger).stream_orders, after, "+", _PAGE)
        for entry_id, fields in page:
            if fields.get("id") == str(order_id):
                yield _entry(ledger, entry_id, fields, _is_past(entry_id, delivered))
        if len(page) < _PAGE:
            return
        after = f"({page[-1][0]}"


def _entry(
    ledger: Redis, entry_id: str, fields: Mapping[str, str], is_waiting: bool
) -> StreamEntry:
    user, voucher = parse_id(fields.get("userId", "")), parse_id(fields.get("voucherId", ""))
    if is_waiting:
        return StreamEntry(entry_id, user, voucher, delivered=False)
    pending: Any = call(
        ledger.xpending_range, lane_of(ledger).stream_orders, keys.GROUP, entry_id, entry_id, 1
    )
    if not pending:
        return StreamEntry(entry_id, user, voucher, delivered=True)
    one = pending[0]
    return StreamEntry(
        entry_id,
        user,
        voucher,
        delivered=True,
        consumer=one["consumer"],
        idle_ms=one["time_since_delivered"],
        deliveries=one["times_delivered"],
    )


def _is_past(entry_id: str, other: str) -> bool:
    def position(text: str) -> tuple[int, int]:
        ms, _, seq = text.partition("-")
        return int(ms), int(seq or 0)

    return position(entry_id) > position(other)

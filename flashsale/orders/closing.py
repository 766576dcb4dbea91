"""The end of a sale: its last orders become rows, its books are compared, its stream is trimmed.

The sale is frozen by then (`seckill/control.py`): nothing new is sold, so what is left to do gets
less. Cancellations go on, and may stand between the two stores for a moment.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from sqlalchemy import Connection, Engine, func, select

from flashsale import keys
from flashsale.model import LIVE_STATUSES
from flashsale.orders.stream import OrderStream
from flashsale.seckill.control import read_units
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Rejected, call, call_all
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order
from flashsale.store_urls import lane_of

_PAGE = 1_000
_LOOK_EVERY_S = 0.1
_LOOKS, _LOOK_AGAIN_S = 3, 0.3
_NAMED_MAX = 5
_order = voucher_order.c

Page = Sequence[tuple[str, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Closing:
    """How a sale ended. `left` orders or units are not yet where they belong."""

    offered: int
    held: int
    left: int = 0
    trimmed: int = 0
    problems: tuple[str, ...] = ()


def close_books(
    ledger: Redis,
    pool: Engine,
    voucher_id: int,
    patience_s: float,
    on_look: Callable[[int], None] = lambda left: None,
) -> Closing:
    """Wait until nothing of a frozen sale is under way, compare its books and, where they agree,
    trim the stream.

    Gives up where nothing moves for `patience_s`. Raises Unavailable or Indeterminate; a second
    call begins anew.
    """
    left = _drained(ledger, pool, voucher_id, patience_s, on_look)
    units = read_units(ledger, [voucher_id])[0]
    if left:
        return Closing(units.offered or 0, units.held, left)
    problems = _problems(ledger, pool, voucher_id)
    trimmed = 0 if problems else _trim(ledger)
    return Closing(units.offered or 0, units.held, trimmed=trimmed, problems=problems)


def _drained(
    ledger: Redis,
    pool: Engine,
    voucher_id: int,
    patience_s: float,
    on_look: Callable[[int], None],
) -> int:
    """What is left when nothing is, or when nothing has moved for too long."""
    least, since_s = None, time.monotonic()
    while True:
        left = unwritten(ledger, voucher_id) + _owed(pool, voucher_id)
        on_look(left)
        now_s = time.monotonic()
        if least is None or left < least:
            least, since_s = left, now_s
        if left == 0 or now_s - since_s >= patience_s:
            return left
        time.sleep(_LOOK_EVERY_S)


def unwritten(ledger: Redis, voucher_id: int) -> int:
    """Entries of a sale that no worker was given, or that none has acknowledged."""
    try:
        groups = call(ledger.xinfo_groups, lane_of(ledger).stream_orders)
    except Rejected:  # there is no stream
        return 0
    known = [g["last-delivered-id"] for g in groups if g["name"] == keys.GROUP]
    found = list(_entries(ledger, lane_of(ledger).stream_orders, f"({known[0]}" if known else "-"))
    if known:
        found += _pending(ledger)
    return sum(fields.get("voucherId") == str(voucher_id) for _, fields in found)


def _pending(ledger: Redis) -> Iterator[tuple[str, Mapping[str, str]]]:
    after = "-"
    while True:
        pending: Any = call(
            ledger.xpending_range, lane_of(ledger).stream_orders, keys.GROUP, after, "+", _PAGE
        )
        pipeline = ledger.pipeline(transaction=False)
        for one in pending:
            pipeline.xrange(lane_of(ledger).stream_orders, one["message_id"], one["message_id"])
        if pending:
            yield from (entry for page in call_all(pipeline) for entry in page)
        if len(pending) < _PAGE:
            return
        after = f"({pending[-1]['message_id']}"


def _entries(ledger: Redis, stream: str, after: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    while page := _page(ledger, stream, after):
        yield from page
        after = f"({page[-1][0]}"


def _page(ledger: Redis, stream: str, after: str) -> Page:
    found: Any = call(lambda: ledger.xrange(stream, after, "+", count=_PAGE))
    return list(found)


def _owed(pool: Engine, voucher_id: int) -> int:
    owing = select(func.count()).where(order_return.c.voucher_id == voucher_id)
    with transaction(pool) as connection:
        return int(connection.execute(owing).scalar_one())


def _problems(ledger: Redis, pool: Engine, voucher_id: int) -> tuple[str, ...]:
    """What does not agree, look after look: a cancellation between two reads is no problem."""
    found: list[str] = []
    for look in range(_LOOKS):
        if look:
            time.sleep(_LOOK_AGAIN_S)
        found = list(compare_books(ledger, pool, voucher_id))
        if not found:
            break
    return tuple(found)


def compare_books(ledger: Redis, pool: Engine, voucher_id: int) -> Iterator[str]:
    """What disagrees in the books of a sale, a line each: units in each store, between the two,
    order set, receipts and rows. Raises Unavailable or Indeterminate."""
    units = read_units(ledger, [voucher_id])[0]
    receipts = call(lambda: ledger.hlen(lane_of(ledger).seckill_receipt(voucher_id)))
    with transaction(pool) as connection:
        sale = connection.execute(
            select(seckill_voucher).where(seckill_voucher.c.voucher_id == voucher_id)
        ).one()
        live = _live(connection, voucher_id)
    if not units.is_loaded or units.offered is None:
        yield "the ledger has lost the sale"
        return
    if units.imbalance:
        yield f"in the ledger {units.imbalance}"
    if sale.initial_stock - sale.stock != live:
        sold = sale.initial_stock - sale.stock
        yield f"in MySQL {sold:,} units are gone from the stock, but {live:,} orders are live"
    if units.offered != sale.initial_stock:
        yield f"{units.offered:,} units offered in the ledger, {sale.initial_stock:,} in MySQL"
    if not units.held == receipts == live:
        yield f"{units.held:,} in the order set, {receipts:,} receipts, {live:,} live orders"
    yield from _rowless(ledger, pool, voucher_id)
    dead = sum(
        fields.get("voucherId") == str(voucher_id)
        for _, fields in _entries(ledger, lane_of(ledger).stream_dead, "-")
    )
    if dead:
        yield f"{dead:,} dead letters; settle them: `flashsale orders dead`"


def _live(connection: Connection, voucher_id: int) -> int:
    live = select(func.count()).where(
        _order.voucher_id == voucher_id, _order.status.in_(LIVE_STATUSES)
    )
    return int(connection.execute(live).scalar_one())


def _rowless(ledger: Redis, pool: Engine, voucher_id: int) -> Iterator[str]:
    """The receipts that no live order of the same user stands behind, the first of them by name."""
    found = 0
    for page in _receipt_pages(ledger, voucher_id):
        query = select(_order.id, _order.user_id).where(
            _order.id.in_([int(order) for order in page.values()]),
            _order.voucher_id == voucher_id,
            _order.status.in_(LIVE_STATUSES),
        )
        with transaction(pool) as connection:
            rows = {(str(row.user_id), str(row.id)) for row in connection.execute(query)}
        for user, order in page.items() - rows:
            found += 1
            if found <= _NAMED_MAX:
                yield f"order {order} of user {user} has a receipt and no live row"
    if found > _NAMED_MAX:
        yield f"and {found - _NAMED_MAX:,} more receipts without a live row"


def _receipt_pages(ledger: Redis, voucher_id: int) -> Iterator[dict[str, str]]:
    cursor = 0
    while True:
        key = lane_of(ledger).seckill_receipt(voucher_id)
        found: Any = call(ledger.hscan, key, cursor, count=_PAGE)
        cursor, page = int(found[0]), found[1]
        if page:
            yield page
        if not cursor:
            return


def _trim(ledger: Redis) -> int:
    """Drop every entry that is a row, of whatever sale; how many they were."""
    trimmed = 0
    stream = OrderStream(ledger, "close")
    while gone := stream.trim(0):
        trimmed += gone
    return trimmed
